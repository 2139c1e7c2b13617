"""A network as importance criteria see it: what writes and what reads each group's channels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.refit.gram import Consumer
from evosearch.refit.norms import BatchNorm
from evosearch.space.mask import ChannelGroup, Member
from evosearch.surgery.reach import Indices, Reached, reached
from evosearch.surgery.tracing.walk import Layer
from evosearch.tasks.classification import cross_entropy

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where one weight holds a group's channels.

    Attributes:
        weight: its name.
        dim: the dimension that the channels run along.
        index: positions along `dim`, `(channels, positions)`.
        layers: the calls that use the weight.
    """

    weight: str
    dim: int
    index: Indices
    layers: tuple[Layer, ...]

    def rows(self, tensor: Tensor) -> Tensor:
        """Returns what belongs to each channel of a tensor shaped as the weight.

        Returns:
            `(channels, elements)`.
        """
        return tensor.movedim(self.dim, 0)[torch.from_numpy(self.index)].flatten(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredNetwork:
    """A network as its criteria see it.

    A group's *writers* are the weights that produce its channels, its *readers* those that
    consume them; a depthwise convolution writes what it passes through.

    Attributes:
        model: never changed: no mode, hook, gradient or statistic.
        groups: the channel groups to score.
        layers: all layers of the network.
        losses: what the model returned and the labels -> the loss of each image, `(images,)`.
        consumers: what `collect_statistics` found, where that was run already.
    """

    model: nn.Module
    groups: Sequence[ChannelGroup]
    layers: Sequence[Layer]
    losses: Callable[[Any, Any], Tensor] = cross_entropy
    consumers: Mapping[str, Consumer] | None = None

    @cached_property
    def writers(self) -> dict[str, tuple[Place, ...]]:
        """Group name -> its writers, in execution order."""
        return self._places(lambda layer: layer.writes)

    @cached_property
    def readers(self) -> dict[str, tuple[Place, ...]]:
        """Group name -> its readers, in execution order."""
        return self._places(lambda layer: layer.reads)

    def _places(self, along: Callable[[Layer], int | None]) -> dict[str, tuple[Place, ...]]:
        calls: dict[tuple[str, int | None], tuple[Layer, ...]] = {}
        for layer in self.layers:
            axis = layer.weight, along(layer)
            calls[axis] = (*calls.get(axis, ()), layer)
        return {
            group.name: tuple(
                Place(
                    weight=member.tensor,
                    dim=member.dim,
                    index=group.index(member),
                    layers=calls[member.tensor, member.dim],
                )
                for member in group.members
                if (member.tensor, member.dim) in calls
            )
            for group in self.groups
        }

    @cached_property
    def norms(self) -> dict[str, dict[str, Indices]]:
        """Group name -> module name of a BatchNorm -> its channels, `(channels, positions)`."""
        norms = {
            name for name, module in self.model.named_modules() if isinstance(module, BatchNorm)
        }
        return {
            group.name: {
                owner(member): group.index(member)
                for member in group.members
                if owner(member) in norms
            }
            for group in self.groups
        }

    @cached_property
    def inputs(self) -> Reached:
        """Module name of a reader -> groups, and their channels in the module's input.

        The channels are `(channels, positions)`, along the input's channel dimension.
        """
        return reached(self.model, self.groups, self.layers, "reads")

    def weight(self, place: Place) -> Tensor:
        """Returns the weight at a place, float64 and without gradient."""
        return self.model.get_parameter(place.weight).detach().double()

    def written(self, group: ChannelGroup) -> list[Tensor]:
        """Returns what writes each channel, float64 `(channels, elements)` for each writer."""
        return [place.rows(self.weight(place)) for place in self.writers[group.name]]

    def read(self, group: ChannelGroup) -> list[Tensor]:
        """Returns what reads each channel, float64 `(channels, elements)` for each reader."""
        return [place.rows(self.weight(place)) for place in self.readers[group.name]]


def owner(member: Member) -> str:
    """Returns the name of the module that holds a member's tensor."""
    return member.tensor.rpartition(".")[0]


def array(tensor: Tensor) -> Array:
    """Returns a tensor's values as float64 in numpy."""
    return tensor.detach().double().cpu().numpy()
