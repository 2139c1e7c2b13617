"""Images and labels: where they come from, what is done to them, how they are split.

`README.md` has the steps to add a source.

==============  ======================================================================
`config`        the `[data]` section of a space file
`sources`       data sources by name, and a user's own callables
`provided`      what such a callable returns, by split
`pools`         images and labels that splits are taken out of
`datasets`      datasets, read item by item, and the dataset of a DataLoader
`labels`        labels of images: tensors, or nests of tensors
`images`        images as bytes or files, normalised as they are read
`several`       images that are several tensors each
`imagecache`    a cache of decoded images, made once for all runs
`transforms`    image transforms by name, of torchvision
`augmentation`  random changes to training images
`splitting`     the draw of splits: classes in proportion, or a list in a file
`splits`        train, calibration, search, confirmation and test splits, a type each
`filedigests`   content digests of files, remembered until they are touched
`contents`      digests of the images and labels of a split
`duplicates`    the check that no two splits share an image
==============  ======================================================================
"""
