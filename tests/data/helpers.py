"""Splits from tensors, and small folders of images."""

import numpy as np
import torch
from PIL import Image

from evosearch.data.images import Images, StoredPixels


def images_of(tensor):
    """Returns images in memory, `(images, channels, height, width)`, without normalisation."""
    return Images(pixels=StoredPixels(tensor.numpy()), positions=np.arange(len(tensor)))


def split_of(kind, images, labels):
    """Returns a split of the given kind."""
    return kind(
        images=images_of(torch.as_tensor(images, dtype=torch.float32)),
        labels=torch.as_tensor(labels),
        indices=torch.arange(len(labels)),
    )


def write_folder(root, part, count, size=(8, 8), classes=("cat", "dog"), seed=0):
    """Writes `count` lossless images of noise of each class, `root/part/class/0000.png`, ..."""
    rng = np.random.default_rng(seed)
    for name in classes:
        folder = root / part / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            height, width = size if isinstance(size, tuple) else size(number)
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:04}.png")
    return root
