"""The study: a run's record on disk, and what is read off it; no torch.

======================  =======================================================================
`study`                 the record: an Optuna study on disk, one trial per evaluated mask
`records`               its header, segments and trials, as JSON and back
`trial`                 proposals, trials, and the rungs of the fitness ladder
`scores`                scores of a network: image by image, in sum, and against another's
`scorestore`            scores of images on disk, mask by mask
`front`                 the Pareto front of loss against size, and picks from it
`networks`              a named network with its cost, scores and latency, wherever it is shown
`trust`                 how well each rung's order agrees with the next one's
`rungtimes`             what a candidate takes on each rung, and which rungs that leaves out
`rankcorrelation`       Spearman's rank correlation of two values over networks, with its interval
`halving`               the rounds of successive halving
`finals`                plans trained side by side by such rounds, and what came of them
`intervals`             Wilson's interval of a share
`dropbound`             the exact bound of by how much a share falls, on the same images
`pairedgain`            the gain of one network over another on the same images, two-sided
`timing`                a latency against the base network's, and its conditions
`runtimecost`           what running a network costs in a runtime: time, and energy
`certificate`           certificates of a run on disk, by the budget that they are of
`latency_certificate`   the timings that say whether the winner keeps a latency budget
`accuracy_certificate`  the drops that say whether the winner keeps an accuracy budget
`identity`              the identity of what a run is about: digests of contents
`imagelist`             the images of a split as a list, and what became of them since
======================  =======================================================================
"""
