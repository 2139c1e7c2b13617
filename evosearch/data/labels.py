"""Labels of images: a tensor with a row for each image, or a nest of tensors for each."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evosearch.callables import one_line
from evosearch.data.images import Positions
from evosearch.errors import InputError


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class NestedLabels:
    """Labels that are a nest of tensors each, such as an image's boxes and their classes.

    A nest is a tensor, a dict of nests by name, or a tuple of nests. All of one data set are
    alike, but for the number of rows of each tensor.

    Attributes:
        each: the nest of every image.
    """

    each: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.each)

    def __repr__(self) -> str:
        return f"NestedLabels({len(self)} x {kind_of(self)})"

    def __getitem__(self, chosen: Positions) -> "NestedLabels":
        """Returns a choice of these labels, as that of a tensor's rows."""
        positions = np.arange(len(self))[np.asarray(chosen) if _is_array(chosen) else chosen]
        return NestedLabels(each=tuple(self.each[position] for position in positions.tolist()))

    def to(self, device: torch.device | str) -> "NestedLabels":
        """Returns these labels on a device."""
        return NestedLabels(each=tuple(_moved(nest, device) for nest in self.each))

    def cpu(self) -> "NestedLabels":
        """Returns these labels on the CPU."""
        return self.to("cpu")


Labels = Tensor | NestedLabels
"""A row for each image: `(images,)` int64 from 0 for classes, else `(images, ...)`; or a nest."""


def are_classes(labels: Labels) -> bool:
    """Returns whether labels are classes: a whole number for each image."""
    return isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()


def class_numbers(labels: Labels) -> NDArray[np.int64]:
    """Returns the class of each image, `(images,)`; that of all is 0 where there are none."""
    if isinstance(labels, Tensor) and are_classes(labels):
        return labels.numpy().astype(np.int64, copy=False)
    return np.zeros(len(labels), dtype=np.int64)


def together(parts: Sequence[Labels]) -> Labels:
    """Returns the labels of batches in a row."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) == len(parts):
        return torch.cat(tensors)
    return NestedLabels(each=tuple(nest for part in parts for nest in part.each))  # type: ignore[union-attr]


def read_labels(given: Any) -> Labels:
    """Returns labels that a data source gives.

    Args:
        given: labels; an array `(images, ...)`; a sequence of nests, one for each image; or a
            dict of such arrays or sequences by name.

    Raises:
        InputError: they are something else, or not alike.
    """
    if isinstance(given, NestedLabels):
        return given
    if isinstance(given, Mapping):
        columns = {str(name): _rows(name, given[name]) for name in given}
        counts = {name: len(rows) for name, rows in columns.items()}
        if len(set(counts.values())) != 1:
            raise InputError(f"labels by name, of {counts or 'no'} images; expected as many each")
        rows = zip(*columns.values(), strict=True)
        return nested([dict(zip(columns, row, strict=True)) for row in rows])
    if isinstance(given, tuple | list) and given and is_nest(given[0]):
        return nested(given)
    try:
        labels = torch.as_tensor(given).detach().cpu()
    except Exception as error:
        raise InputError(
            f"labels that are no array of numbers: {one_line(error)}; expected integers from 0,"
            " or for a [task] without classes an array, or a dict of arrays for each image"
        ) from error
    _require_finite(labels)
    return labels


def nested(given: Sequence[Any]) -> NestedLabels:
    """Returns the nests of images as labels.

    Raises:
        InputError: one holds something else than numbers, or is not like the first.
    """
    labels = NestedLabels(each=tuple(nest_of(nest, i) for i, nest in enumerate(given)))
    kinds = [_kind(nest) for nest in labels.each]
    odd = next((position for position, kind in enumerate(kinds) if kind != kinds[0]), None)
    if odd is not None:
        raise InputError(f"image {odd}: a label of {kinds[odd]}, while the first has {kinds[0]}")
    return labels


def nest_of(given: Any, position: int) -> Any:
    """Returns what is given as the label of one image, as tensors, dicts and tuples of them.

    Args:
        given: numbers, an array, or a dict, tuple or list of these.
        position: of the image, for messages.

    Raises:
        InputError: it holds something that is no number.
    """
    if isinstance(given, Mapping):
        return {str(name): nest_of(given[name], position) for name in sorted(given, key=str)}
    if is_nest(given):
        return tuple(nest_of(part, position) for part in given)
    try:
        tensor = torch.as_tensor(given).detach().cpu()
    except Exception as error:
        raise InputError(
            f"image {position}: a label that is no number: {one_line(error)}; expected an integer"
            " from 0, or an array or a dict of arrays for a [task] without classes"
        ) from error
    _require_finite(tensor)
    return tensor


def is_nest(label: Any) -> bool:
    """Returns whether a label is a dict, or a tuple or list of arrays, and no array itself."""
    if isinstance(label, Mapping):
        return True
    parts = label if isinstance(label, tuple | list) else ()
    return any(_is_array(part) or is_nest(part) for part in parts)


def kind_of(labels: Labels) -> str:
    """Returns the types and shapes of labels, but for how many there are."""
    if isinstance(labels, Tensor):
        return f"{labels.dtype} of shape {tuple(labels.shape[1:])}"
    return _kind(labels.each[0])


def label_texts(labels: Labels) -> Sequence[str]:
    """Returns a text for each label: numbers as these, and others as digests."""
    if isinstance(labels, Tensor) and labels.ndim == 1:
        return [repr(label) for label in labels.tolist()]
    if isinstance(labels, Tensor):
        kind = f"{labels.dtype} {tuple(labels.shape[1:])} ".encode()
        rows = (kind + row.contiguous().numpy().tobytes() for row in labels)
    else:
        rows = (b"".join(_described(nest)) for nest in labels.each)
    return [hashlib.blake2b(row, digest_size=16).hexdigest() for row in rows]


def same_label(first: Any, second: Any) -> bool:
    """Returns whether two nests are equal."""
    return list(_described(first)) == list(_described(second))


def _described(nest: Any, path: str = "") -> Iterator[bytes]:
    """Yields what tells a nest from others: where its tensors are, and what they hold."""
    if isinstance(nest, Tensor):
        yield f"{path} {nest.dtype} {tuple(nest.shape)} ".encode()
        yield nest.contiguous().numpy().tobytes()
        return
    parts = nest.items() if isinstance(nest, Mapping) else enumerate(nest)
    for name, part in parts:
        yield from _described(part, f"{path}/{name!r}")


def _kind(nest: Any) -> str:
    if isinstance(nest, Tensor):
        dtype = str(nest.dtype).removeprefix("torch.")
        return (
            f"{dtype} ({', '.join(['rows', *map(str, nest.shape[1:])])})" if nest.ndim else dtype
        )
    if isinstance(nest, Mapping):
        return f"{{{', '.join(f'{name}: {_kind(part)}' for name, part in nest.items())}}}"
    return f"({', '.join(map(_kind, nest))})"


def _moved(nest: Any, device: torch.device | str) -> Any:
    if isinstance(nest, Tensor):
        return nest.to(device)
    if isinstance(nest, Mapping):
        return {name: _moved(part, device) for name, part in nest.items()}
    return tuple(_moved(part, device) for part in nest)


def _rows(name: object, given: Any) -> Any:
    if not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise InputError(f"labels {name!r}: expected an array or a list, got {given!r:.40}")
    return given


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _require_finite(labels: Tensor) -> None:
    if labels.is_floating_point() and not bool(labels.isfinite().all()):
        raise InputError("labels hold values that are not finite")
