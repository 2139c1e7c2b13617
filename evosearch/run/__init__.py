"""A run: a search on disk, from its config to the fine-tuned network.

==============  ========================================================================
`folder`        the name of every file of a run
`config`        everything that a run was asked for
`spacefile`     the file that says which model and data are searched
`newspace`      such a file written for a model, to be reviewed
`subject`       base network, data and proven space, as torch objects
`evaluating`    the evaluator of a run
`identity`      what a run is about, told apart by contents
`recorded`      the same as a run's folder has it
`references`    the base network and the plans that need no search
`baselook`      the base network as a search finds it: what it computes in, what it is worth
`preparation`   what is measured before the first trial
`creation`      the folder of a new run, written whole or not at all
`elastic`       the elastic weights of a run: trained once, cached by contents
`probing`       what each group's cut does to the loss, what a rung costs: measured once
`reopening`     the same loaded again from the folder
`budgeting`     another budget for a run that was begun
`ended`         why a session ended, and what was certified
`session`       search, baselines, certificate, close: the order of it all
`training`      a training under a budget: begun as a run, or gone on with
`course`        the same to its end: its networks recorded, the last finished
`tolerated`     a drop of accuracy in place of a budget: what it goes with, what it came to
`waypoints`     its trials: the networks that it went through
`cycles`        trainings one after the other, each of a smaller network
`finished`      the finished network of a training, measured on test and saved
`shrinking`     the budget in force while a network trains, and the cuts to it
`regrowing`     channels cut for a while, some of which come back for others
`choosing`      the channels that stay at a cut: a criterion, and a plan rule
`baselines`     plans that learn nothing, searched beside
`callbacks`     functions that are told how something goes
`lock`          one process at a time
`replicas`      copies for the processes of torchrun, which share a training
`log`           a line for each event
`planning`      the best known network at any budget
`picking`       a plan of a run, with the run opened for it
`compared`      the networks that a plan is built as and shown beside
`channels`      choosers of channels for a cut without a search
`cutting`       the network of a plan before any training
`saving`        a network's artifact
`implanting`    dropped filters of a plan that come back as 1x1 convolutions
`students`      what the distillation of a plan begins with
`finetuning`    a network distilled, measured on test, and saved
`finishing`     a network trained by another program: measured on test, and saved
`refining`      the finished network of a training, fine-tuned
`finals`        the best plans near a budget, trained side by side, and the last shipped
`finalists`     which plans these are
`contest`       their training, round by round, and what it costs
`testing`       the test split of a run, behind its ledger
`quantization`  a network's export in int8: calibrated on the data, measured on test, timed
`measurer`      what an aim has measured of networks beyond their trials
`freshtiming`   networks timed in a process of their own
`timedfront`    the front by its measured latency
`profiling`     the latency profile of a space file's model
==============  ========================================================================
"""
