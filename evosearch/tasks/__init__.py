"""Tasks: what a network is for, and how well it does it.

`README.md` has the steps to add a task.

================  ====================================================
`config`          the `[task]` section of a space file
`task`            the loss, the metric, and the output that they judge
`ownlosses`       losses that networks compute themselves while they train
`classification`  cross-entropy and accuracy of logits, the default
`segmentation`    cross-entropy and mean IoU of the classes of pixels
`regression`      squared error and R2 of numbers
`detection`       mean average precision of boxes
`fitting`         the check that network, data and task fit each other
`scoring`         loss and metric of every image of a split, in numerics that work
`resident`        a split that stays on a device, normalised once
`testing`         the test split, measured once for each named network
================  ====================================================
"""
