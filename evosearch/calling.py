"""The inputs of a model, one tensor or several, and the one way to call it with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import pairwise
from typing import Any, NamedTuple, final

import torch
from torch import Tensor


class Arguments(NamedTuple):
    """What a module is called with, each a nest of tensors and plain values.

    A named tuple, so that torch's functions on nests go through it.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class SeveralInputs:
    """The tensors that a model takes together, each with a row for each image.

    Attributes:
        parts: by their place in the call, or by name.
    """

    parts: tuple[Tensor, ...] | Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self._tensors[0])

    def __getitem__(self, chosen: Any) -> "SeveralInputs":
        """Returns some of the rows, of all tensors alike."""
        return self.map(lambda tensor: tensor[chosen])

    def to(self, device: torch.device | str) -> "SeveralInputs":
        """Returns these tensors on a device."""
        return self.map(lambda tensor: tensor.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> "SeveralInputs":
        """Returns what a function makes of each tensor."""
        if isinstance(self.parts, Mapping):
            return SeveralInputs(parts={name: function(own) for name, own in self.parts.items()})
        return SeveralInputs(parts=tuple(map(function, self.parts)))

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return tuple(self.parts.values() if isinstance(self.parts, Mapping) else self.parts)

    @property
    def device(self) -> torch.device:
        """Where they lie, all on one."""
        return self._tensors[0].device


Inputs = Tensor | SeveralInputs
"""A batch of what a model takes."""
Example = tuple[Any, ...] | Mapping[str, Any] | Arguments
"""The same as it is written down: by place, by name, or both."""


def inputs_of(example: tuple[Tensor, ...] | Mapping[str, Tensor]) -> Inputs:
    """Returns tensors that are written down by place or by name as a batch."""
    if isinstance(example, tuple) and len(example) == 1:
        return example[0]
    return SeveralInputs(parts=example)


def call(model: Callable[..., Any], inputs: Inputs | Example) -> Any:
    """Returns what a model makes of inputs."""
    found = arguments(model, inputs)
    return model(*found.args, **found.kwargs)


def arguments(model: Callable[..., Any], inputs: Inputs | Example) -> Arguments:
    """Returns what a model is called with for inputs.

    Those by name are keywords, where its forward pass takes such, or else one dict.
    """
    if isinstance(inputs, Arguments):
        return inputs
    parts = inputs.parts if isinstance(inputs, SeveralInputs) else inputs
    if isinstance(parts, Mapping):
        named = dict(parts)
        return Arguments((), named) if fits(model, **named) else Arguments((named,), {})
    return Arguments((parts,), {}) if isinstance(parts, Tensor) else Arguments(tuple(parts), {})


def fits(model: Callable[..., Any], /, *args: Any, **kwargs: Any) -> bool:
    """Returns whether a model's forward pass can be called so, by its signature."""
    try:
        signature(getattr(model, "forward", model)).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it tells nothing, as of code that is not Python's
        return True
    return True


def each(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Returns what a function makes of each tensor among inputs."""
    return function(inputs) if isinstance(inputs, Tensor) else inputs.map(function)


def joined(batches: Sequence[Inputs]) -> Inputs:
    """Returns batches in a row as one."""
    tensors = [batch for batch in batches if isinstance(batch, Tensor)]
    if len(tensors) == len(batches):
        return torch.cat(tensors)
    several = [batch.parts for batch in batches if isinstance(batch, SeveralInputs)]
    if isinstance(first := several[0], Mapping):
        named = {name: torch.cat([own[name] for own in several]) for name in first}  # type: ignore[call-overload]
        return SeveralInputs(parts=named)
    return SeveralInputs(parts=tuple(map(torch.cat, zip(*several, strict=True))))


def slices(length: int, count: int) -> list[slice]:
    """Returns so many slices of nearly equal size that make up a length, in order."""
    size, larger = divmod(length, count)
    starts = [size * place + min(place, larger) for place in range(count + 1)]
    return [slice(*ends) for ends in pairwise(starts)]


def pieces(inputs: Inputs, count: int) -> list[Inputs]:
    """Returns inputs as so many batches of nearly equal size, in order."""
    return [inputs[piece] for piece in slices(len(inputs), count)]
