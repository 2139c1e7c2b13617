"""Channel groups of a network, the proof that they are right, and the cut.

================  ==========================================================================
`discovery`       the search space of a model: traced, restricted by rules, proven, counted
`tracing`         labels propagated over the exported graph: groups before proof
`readings`        the loosest readings of a model's operators that its proof bears
`proof`           comparison of compacted and masked networks, group by group and together
`rerunning`       runs that differ in a few channels, what they share computed once
`randomizing`     the random parameters under which that comparison hides nothing
`compaction`      the compact network of a mask, cut from a copy or in place
`slicing`         the same, which reads its weights out of the whole network's
`cut_attention`   forward passes of attention modules that have lost heads
`narrowing`       the search space of a network that was cut, without tracing it
`reach`           places of channels in what modules read and give
`gating`          gates that learn: factors on channels, thrown away after training
`gate_kinds`      gates by kind: squeeze-and-excitation, consensus
`counting`        MACs, params and outputs as exact forms in the widths
`peakmemory`      activations alive at once, likewise
`filesize`        bytes of the file of the weights, likewise
================  ==========================================================================
"""
