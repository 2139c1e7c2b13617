"""Networks: how a space file names one, its weights, its modes, the numbers it computes in.

===========  =================================================================
`build`      the `[model]` section, and the network that it builds
`zoo`        networks that ship with the program
`weights`    weight files of nothing but tensors; the digest of weights
`copying`    a copy of a model, whatever its code has stored on its modules
`modes`      training and evaluation mode, put back afterwards
`precision`  bfloat16 or float32, channels last in memory or not, and what falls back
===========  =================================================================
"""
