"""Training: one epoch loop, and what takes part in it.

`README.md` has the steps to add an objective, an optimizer or a schedule.

================  ========================================================================
`trainer`         the epoch loop of everything that trains, and its learning rates
`schedule`        what the loop has to know of a config: how long, how fast
`gradient`        the gradient of a step: of its batch, whole or in pieces
`epochloss`       the mean objective of an epoch, read off the device seldom
`prefetch`        the batches of an epoch, each made while the step before it computes
`distributed`     its batches in shares, one for each process of torchrun
`parts`           the protocol of what takes part: losses, cuts, the best epoch
`optimizers`      SGD, or Muon for the kernels of convolutions
`base_training`   the training of a base network from scratch, and `[train]`
`distillation`    the training of a compact network by its teacher, and `[finetune]`
`elastic`         the training of weights for many plans at once, and `[elastic]`
`additions`       what may take part in it: penalties, kernels, a pace
`imitation`       its objective: the teacher's outputs, its attention, the labels
`objective`       the distillation loss: softened logits, and labels
`attention`       attention transfer: the loss between attention maps
`heads`           auxiliary heads, which run in training only
`bestepoch`       the best epoch, by the loss on the search split
`epochs`          the records of an epoch and of a fine-tuning, and the callback told of them
`averaging`       the average of the weights over the last steps
`checkpoint`      the state of a training in one file
`pace`            when how much of a network is gone, while it trains
`pacing`          paces by name, those that go by the clock among them
`recorded_paces`  paces that a training's record decides
`penalties`       penalties: losses added by name, which make channels easy to drop
`penalized`       the part of a training that adds them to its objective
`gated`           the part that hangs gates into its network while there is something to cut
`kernels`         weights that are something else while they train: OREPA, N:M, held zeros
`reparametrised`  the part of a training whose network has such weights, by name
`towards`         the part of a training that cuts to channels that are given, at a pace
`recipes`         recipes for training under a budget, each a row of settings; `[prune]`
`frozen`          the first layers, frozen from when they no longer move: Learn & Drop
`cutpoints`       where a network's graph comes apart in two, for that
`wiring`          what makes each channel of a network in training, and what reads it
================  ========================================================================
"""
