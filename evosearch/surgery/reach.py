"""Places of channels in what the modules of a network read and give."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.errors import InputError
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.tracing.layer import Layer

Indices = NDArray[np.int64]
Reached = dict[str, list[tuple[str, Indices]]]
"""Module name -> groups, and where their channels are, `(channels, positions)`."""


def reached(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    layers: Sequence[Layer],
    along: Literal["reads", "writes"],
) -> Reached:
    """Returns where modules read channels in their input, or write them into their output.

    Positions are along the dimension that `channel_dim` gives.

    Args:
        model: looked up by name.
        groups: whose channels are asked for.
        layers: all layers of the network.
        along: "reads" for inputs, "writes" for outputs.
    """
    found: Reached = {}
    holders: dict[int, list[str]] = {}  # modules may share a weight
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(name)
    called: dict[tuple[str, int | None], Layer] = {}
    for layer in layers:
        called.setdefault((layer.weight, getattr(layer, along)), layer)
    for group in groups:
        for member in group.members:
            first = called.get((member.tensor, member.dim))
            if first is None:
                continue
            weight, index = model.get_parameter(member.tensor), group.index(member)
            if first.groups > 1 and member.dim == 1:  # the same positions of every conv group
                offsets = np.arange(first.groups) * weight.shape[1]
                index = (index[:, :, None] + offsets).reshape(len(index), -1)
            for name in holders[id(weight)]:
                found.setdefault(name, []).append((group.name, index))
    return found


def channel_dim(module: nn.Module) -> int:
    """Returns the dimension of a layer's input and output that its channels run along."""
    return -1 if isinstance(module, nn.Linear) else 1


def by_image(values: Tensor, images: int) -> Tensor:
    """Returns rows gathered by image, `(images, rows of one, ...)`.

    Args:
        values: `(rows, ...)`; an image has several rows where code folds windows or tokens into
            the batch, its own next to each other.
        images: how many there are.
    """
    return values.reshape(images, -1, *values.shape[1:])


def require_in_sight(name: str, module: nn.Module, does: str = "reads") -> None:
    """Checks that a hook on a module sees what a layer reads and gives.

    Raises:
        InputError: the weight does not belong to a linear or convolution module.
    """
    if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        raise InputError(
            f"module {name!r} ({type(module).__name__}) {does} channels out of sight:"
            " expected a linear or convolution module; exclude what writes them"
        )
