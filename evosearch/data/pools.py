"""Pools: images and labels that splits are taken out of, checked as they come in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor

from evosearch.callables import one_line
from evosearch.data.config import DataConfig
from evosearch.data.datasets import AnyPixels, read_dataset
from evosearch.data.images import Images, LazyPixels, Pixels, Positions, StoredPixels
from evosearch.data.labels import Labels, are_classes, kind_of, read_labels
from evosearch.data.several import AnyImages, SeveralImages, is_several, mapped
from evosearch.data.transforms import Transform, build_transform
from evosearch.errors import InputError


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Images that splits are taken out of.

    Attributes:
        images: normalised as they are read.
        labels: `(images,)` int64 from 0 for classes; `(images, ...)` or nests for other tasks.
        indices: int64, `(images,)`: positions in the data as their source orders them.
    """

    images: AnyImages
    labels: Labels
    indices: Tensor

    def take(self, chosen: Positions) -> Self:
        """Returns the images at positions of this pool."""
        return replace(
            self,
            images=self.images.select(chosen),
            labels=self.labels[chosen],
            indices=self.indices[chosen],
        )


Pools = Mapping[str, Callable[[], Pool]]
"""Images by the split that they are for, read when they are called for: a search needs no test.

"train" and "test" are always there; "calibration", "search" and "confirmation" where a callable
brings them, and else they are taken out of "train".
"""


def pools_of(parts: Mapping[str, Any], config: DataConfig) -> Pools:
    """Returns pools whose images are numbered from 0 in the order of the parts.

    Args:
        parts: name of a split -> arrays `(images, labels)`, or a dataset.
        config: the `[data]` section.
    """
    pools: dict[str, Callable[[], Pool]] = {}
    first = 0
    for name, part in parts.items():
        pools[name] = partial(_read, name, part, first, config)
        first += images_in(part)
    return pools


def images_in(part: Any) -> int:
    """Returns how many images there are in a part of the data."""
    images = part[0] if is_pair(part) else part
    if not is_several(images):
        return len(images)
    rows = list(images.values() if isinstance(images, Mapping) else images)
    return len(rows[0]) if rows and hasattr(rows[0], "__len__") else 0


def is_pair(part: Any) -> bool:
    """Returns whether a part of the data is `(images, labels)`, and no dataset."""
    return isinstance(part, tuple | list) and len(part) == 2


def pool_of(given: AnyPixels, labels: Any, first_index: int, config: DataConfig) -> Pool:
    """Returns images with their labels as a pool.

    Args:
        given: the images; several by place or by name where a network takes several tensors.
        labels: one for each; see `read_labels`.
        first_index: position of the first image in the data.
        config: the `[data]` section.

    Raises:
        InputError: they do not fit each other, or the section.
    """
    targets = read_labels(labels)
    images = _images(given, config)
    count = len(images)
    if isinstance(targets, Tensor) and (targets.ndim == 0 or len(targets) != count):
        raise InputError(f"{count} images, but labels of shape {tuple(targets.shape)}")
    if len(targets) != count:
        raise InputError(f"{count} images, but {len(targets)} labels")
    if count < 2:
        raise InputError(f"expected two or more images, got {count}")
    if isinstance(targets, Tensor) and are_classes(targets):
        targets = targets.to(torch.int64)
        if int(targets.min()) < 0:
            raise InputError(f"expected labels that are integers from 0, got {int(targets.min())}")
    row = tuple(targets.shape[1:]) if isinstance(targets, Tensor) else None
    if (row is None or len(row) > 1) and (config.augment or config.transforms):
        kind = kind_of(targets) if row is None else f"of shape {row}"
        raise InputError(
            f"[data] augment and transforms change images but not their labels {kind}; leave"
            " both empty"
        )
    return Pool(
        images=images,
        labels=targets,
        indices=torch.arange(first_index, first_index + count),
    )


def _images(given: AnyPixels, config: DataConfig) -> AnyImages:
    """Returns images of their pixels, normalised as the section says.

    Raises:
        InputError: the section does not fit them, or there are more of one kind than of another.
    """
    if isinstance(given, tuple | Mapping):
        images = SeveralImages(parts=mapped(_plain, given))
        counts = [len(own) for own in images.each]
        if len(set(counts)) != 1:
            raise InputError(
                f"several inputs, of {counts or 'no'} images; expected as many of each"
            )
        if config.mean or config.transforms or config.augment:
            raise InputError(
                "[data] mean, std, transforms and augment are for one image tensor, and these"
                " images are several each; leave them out, and give inputs as the network takes"
                " them"
            )
        return images
    if config.mean and len(config.mean) != given.shape[0]:
        raise InputError(
            f"[data] mean and std have {len(config.mean)} values, the images {given.shape[0]}"
            " channels"
        )
    return replace(_plain(given), mean=config.mean, std=config.std)


def _plain(pixels: Pixels) -> Images:
    return Images(pixels=pixels, positions=np.arange(len(pixels)))


def array_pixels(images: Any, transform: Transform | None, *, planar: bool = True) -> Pixels:
    """Returns images of an array: bytes as they are, other numbers as float32.

    Args:
        images: `(images, channels, height, width)`.
        transform: what is done to each.
        planar: whether each must be a picture, and not a tensor of any shape.

    Raises:
        InputError: they are something else.
    """
    try:
        tensor = torch.as_tensor(images).detach().cpu()
    except Exception as error:
        raise InputError(f"images that are no array: {one_line(error)}") from error
    if tensor.is_complex() or (tensor.ndim != 4 if planar else tensor.ndim == 0):
        raise InputError(
            "expected images (images, channels, height, width) and labels (images, ...), got"
            f" images {tuple(tensor.shape)} of type {tensor.dtype}"
        )
    if len(tensor) == 0:
        raise InputError("expected two or more images, got 0")
    if tensor.dtype != torch.uint8:
        tensor = tensor.to(torch.float32)
        if not bool(tensor.isfinite().all()):
            raise InputError("images hold values that are not finite")
    if transform is None:
        return StoredPixels(tensor.numpy())
    return LazyPixels(lambda position: tensor[position], len(tensor), transform)


def _read(name: str, part: Any, first: int, config: DataConfig) -> Pool:
    """Returns the pool of a split."""
    transform = build_transform(config.transforms, "[data] transforms")
    try:
        if is_pair(part):
            images, labels = part
            if is_several(images):
                several = mapped(partial(array_pixels, transform=None, planar=False), images)
                return pool_of(several, labels, first, config)
            return pool_of(array_pixels(images, transform), labels, first, config)
        return pool_of(*read_dataset(part, transform), first, config)
    except InputError as error:
        raise InputError(f"[data] name = {config.name!r}: {name}: {error}") from error
