"""Datasets of PyTorch's kind, read item by item: images with the labels that come with them."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    default_convert,
)

from evosearch.callables import one_line
from evosearch.data import imagecache
from evosearch.data.images import LazyPixels, Pixels, StoredPixels
from evosearch.data.labels import Labels, nest_of, nested, same_label
from evosearch.data.several import is_several
from evosearch.data.transforms import Transform
from evosearch.errors import InputError

READ_TWICE = 64
"""Images of a dataset that are read twice. A change that is drawn for one read in ten shows on an
image with a probability of 0.18, so that none of 64 shows it with one of 3e-6."""


AnyPixels = Pixels | tuple[Pixels, ...] | dict[str, Pixels]
"""Of images that are one tensor each, or several, by place or by name."""


def read_dataset(dataset: Any, transform: Transform | None) -> tuple[AnyPixels, Labels]:
    """Returns the images and the labels of a dataset, in one pass through its items.

    Attributes such as `targets` are not looked at: what an item is may be otherwise. Images that
    are too many to be kept are read again whenever they are asked for.

    Args:
        dataset: has a length, and `(image, label)` at each position; an image is one tensor, or
            a tuple or dict of such.
        transform: what is done to each image.

    Returns:
        The images, and labels `(images, ...)` or nests.

    Raises:
        InputError: an item is something else or cannot be read, is not like the first, or is
            another when it is read again.
    """
    count = len(dataset)
    if count < 2:
        raise InputError(f"expected two or more images, got {count}")
    first, _ = _item(dataset, 0)
    keys = _keys(first)
    lazy = {key: _lazy(dataset, count, transform, key, first) for key in keys}
    fits = count * sum(own.image_bytes for own in lazy.values()) <= imagecache.CACHE_BYTES
    kept = {
        key: torch.empty((count if fits else 0, *own.shape), dtype=own.dtype)
        for key, own in lazy.items()
    }
    twice = set(np.linspace(0, count - 1, min(count, READ_TWICE)).astype(int).tolist())
    labels: list[Any] = []
    for position in range(count):
        image, label = _item(dataset, position)
        if _keys(image) != keys:
            raise InputError(
                f"image {position}: {_named(_keys(image))}, while the first has {_named(keys)}"
            )
        pixels = {k: own.decoded(_part(image, k), position) for k, own in lazy.items()}
        if position in twice:
            again, label_again = _item(dataset, position)
            for key, own in lazy.items():
                second = own.decoded(_part(again, key), position)
                _require_same(position, (pixels[key], label), (second, label_again))
        if fits:
            for key, own_pixels in pixels.items():
                kept[key][position] = own_pixels
        if labels and _shape(label) != _shape(labels[0]):
            raise InputError(
                f"image {position}: a label of shape {_shape(label)}, while the first has"
                f" {_shape(labels[0])}"
            )
        labels.append(label)
    flat = isinstance(labels[0], Tensor)
    found: dict[_Key, Pixels] = {
        key: StoredPixels(kept[key].numpy()) if fits else own for key, own in lazy.items()
    }
    return _together(found), torch.stack(labels) if flat else nested(labels)


_Key = str | int | None
"""Where a tensor is in an image: None is the image itself."""


def _keys(image: Any) -> tuple[_Key, ...]:
    if not is_several(image):
        return (None,)
    keys = tuple(image) if isinstance(image, Mapping) else tuple(range(len(image)))
    if not keys or (isinstance(image, Mapping) and not all(isinstance(k, str) for k in keys)):
        raise InputError(
            f"an image of several tensors, by {list(keys)}; expected names, or places"
        )
    return keys


def _part(image: Any, key: _Key) -> Any:
    return image if key is None else image[key]


def _named(keys: tuple[_Key, ...]) -> str:
    return "one tensor" if keys == (None,) else f"several: {', '.join(map(str, keys))}"


def _lazy(
    dataset: Any, count: int, transform: Transform | None, key: _Key, first: Any
) -> LazyPixels:
    return LazyPixels(
        lambda position: _part(_item(dataset, position)[0], key),
        count,
        transform if key is None else None,
        planar=key is None,
        first=_part(first, key),
    )


def _together(found: dict[_Key, Pixels]) -> AnyPixels:
    if None in found:
        return found[None]
    named = {key: own for key, own in found.items() if isinstance(key, str)}
    return named or tuple(found.values())


def dataset_of(loader: "DataLoader[Any]") -> Any:
    """Returns the dataset of a loader that goes through all of it, in whatever order.

    Raises:
        InputError: the loader means some of the images only, or another thing than the dataset's
            items.
    """
    dataset: Any = loader.dataset
    require_dataset(dataset)
    batches = loader.batch_sampler
    sampler: Any = loader.sampler if batches is None else getattr(batches, "sampler", None)
    known = type(batches) in (BatchSampler, NoneType) and (
        type(sampler) is SequentialSampler
        or (type(sampler) is RandomSampler and not sampler.replacement)
    )
    if not known or len(sampler) != len(dataset):
        named = batches if type(batches) not in (BatchSampler, NoneType) else sampler
        raise InputError(
            f"a DataLoader whose {type(named).__name__} may leave images out, or repeat some;"
            " return the dataset of those that are meant, such as"
            " torch.utils.data.Subset(dataset, indices)"
        )
    if loader.collate_fn not in (default_collate, default_convert):
        name = getattr(loader.collate_fn, "__name__", type(loader.collate_fn).__name__)
        raise InputError(
            f"a DataLoader whose collate_fn {name} may change images and labels; have the"
            " dataset's __getitem__ do it, and return the dataset"
        )
    return dataset


def require_dataset(part: Any) -> None:
    """Checks that something has a length, and items at positions.

    Raises:
        InputError: it has not.
    """
    has_items = hasattr(part, "__len__") and hasattr(part, "__getitem__")
    if isinstance(part, IterableDataset) or not has_items or isinstance(part, dict | str | bytes):
        raise InputError(
            "expected arrays (images, labels), or a dataset with a length and (image, label) at"
            f" each position, got a {type(part).__name__}"
        )


def _item(dataset: Any, position: int) -> tuple[Any, Any]:
    """Returns an image as the dataset gives it, and its label."""
    try:
        item = dataset[position]
    except Exception as error:
        raise InputError(f"image {position}: {one_line(error)}") from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        came = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        raise InputError(f"image {position}: expected (image, label), got {came}")
    image, label = item
    return image, nest_of(label, position)


def _shape(label: Any) -> tuple[int, ...] | None:
    """Returns the shape of a label that is a tensor; nests have shapes of their own."""
    return tuple(label.shape) if isinstance(label, Tensor) else None


def _require_same(position: int, first: tuple[Tensor, Any], second: tuple[Tensor, Any]) -> None:
    """Checks that an image and its label are what they were when they were read before."""
    if not torch.equal(first[0], second[0]):
        raise InputError(
            f"image {position} differs when it is read again, as random transforms have it; name"
            " those in [data] augment, which is for training alone, and give the dataset without"
            " them"
        )
    if not same_label(first[1], second[1]):
        raise InputError(
            f"the label of image {position} differs when it is read again; give a dataset whose"
            " labels stay"
        )
