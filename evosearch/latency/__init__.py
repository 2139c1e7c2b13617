"""Latency on this device, in the user's runtime: measured, and predicted from widths.

Energy is measured where a counter of the hardware can be read.
`README.md` tells how the parts play together, and has the steps to add a runtime.

===========  ===============================================================
`runtimes`   PyTorch eager, compiled and exported; ONNX Runtime in float and int8
`stopwatch`  fair timing: short blocks, the base network in turn
`energy`     energy by the counters of the hardware, where one is readable
`bench`      networks timed in turn in one runtime, under stated conditions
`meter`      compact networks timed against their base network
`deployed`   the network of an artifact measured in runtimes, for its card
`journal`    timings on disk, so that an interrupted profile goes on
`steps`      channels that save time only together
`fitting`    the fit of a form in the widths to the timings
`profile`    the latency model of a space: measured, fitted, checked, cached
`model`      the latency model itself, and `[search.latency]`
===========  ===============================================================
"""
