"""Channel groups of an exported graph, before proof; README.md says how to add a rule.

====================  =====================================================================
`export`              the exported graphs, the table of rules, and what a walk makes of them
`parts`               parts of a model that are traced by themselves
`graph`               an exported model, as a walk reads it
`walk`                one walk over a graph: every result gets its labels by a rule
`layer`               what every call of a layer reads and writes
`labels`              the union-find over labels, and operations on label tensors
`rules_layers`        rules of convolutions, linear layers and normalizations
`rules_products`      rules of products of two activations: attention
`rules_operators`     rules of operators without sizes: pass, unite, move, pool, reduce
`rules_sizes`         rules of operators whose sizes the code may fix: slice, split, pad
`rules_reshape`       rules of reshapes, which split channels into heads too
`graph_digest`        a digest of what a model computes, but for the values of its weights
`grouping`            groups: the classes of labels that have the same members
====================  =====================================================================
"""
