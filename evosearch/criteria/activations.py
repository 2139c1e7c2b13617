"""Criteria that read activations: one forward pass serves them all.

A channel is seen where its readers read it, after BatchNorm, activation and residual sums: that
is what goes when the channel goes.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.criteria.base import Batches, Criterion, Needs, Normaliser
from evosearch.criteria.layer_inputs import input_hooks, stacked
from evosearch.criteria.scored_network import ScoredNetwork, array
from evosearch.data.labels import Labels, are_classes, kind_of, together
from evosearch.errors import InputError
from evosearch.space.knowledge import ImportanceScores
from evosearch.surgery.reach import Indices, by_image, channel_dim


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What was measured on every map.

    Attributes:
        values: group name -> mean over the group's readers, `(images, channels)`.
        labels: of the images.
    """

    values: dict[str, Tensor]
    labels: Labels


class OnActivations(Criterion[Measured]):
    """Kind of criterion that measures each activation map by itself, then sums up over images.

    Attributes:
        images: how many are measured, from the first; None for all.
    """

    needs = Needs.IMAGES
    coupled = "mean over readers"
    normaliser = Normaliser.MEAN
    images: ClassVar[int | None] = None

    @abstractmethod
    def measure(self, maps: Tensor) -> Tensor:
        """Returns one number for each map.

        Args:
            maps: activations as a reader gets them, `(images, channels, height, width)`; with
                one position where pooling has gone before.

        Returns:
            `(images, channels)`.
        """

    def combine(self, values: Tensor, labels: Labels) -> Tensor:
        """Returns scores `(channels,)`: by default the mean over images.

        Args:
            values: measured, `(images, channels)`.
            labels: of the images.
        """
        return values.mean(0)

    @staticmethod
    def gather(
        criteria: Sequence[Any],
        network: ScoredNetwork,
        batches: Batches,
        rng: np.random.Generator,
    ) -> Sequence[Measured]:
        """Measures for all criteria in one forward pass."""
        passes = [_Pass(criterion, network) for criterion in criteria]

        def on_input(name: str, read: Tensor) -> None:
            module = network.model.get_submodule(name)
            for group, index in network.inputs[name]:
                found = maps(module, read, index)
                for own in passes:
                    own.observe(group, found)

        with input_hooks(network, on_input) as model, torch.inference_mode():
            for images, labels in batches:
                for own in passes:
                    own.begin(images, labels)
                call(model, images)
                for own in passes:
                    own.end()
        return [own.measured() for own in passes]

    def score(
        self, network: ScoredNetwork, evidence: Measured, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        return {
            group: array(self.combine(values, evidence.labels))
            for group, values in evidence.values.items()
        }


class _Pass:
    """One criterion's part in a forward pass over batches."""

    def __init__(self, criterion: OnActivations, network: ScoredNetwork) -> None:
        self._criterion = criterion
        self._left = criterion.images
        self._batch = self._size = 0
        self._calls: dict[str, list[Tensor]] = {}
        self._values: dict[str, list[Tensor]] = {group.name: [] for group in network.groups}
        self._labels: list[Labels] = []

    def begin(self, images: Inputs, labels: Labels) -> None:
        self._batch = len(images)
        self._size = len(images) if self._left is None else min(len(images), self._left)
        self._labels.append(labels[: self._size].cpu())
        self._calls = {name: [] for name in self._values}

    def observe(self, group: str, found: Tensor) -> None:
        if self._size:
            rows = found[: len(found) // self._batch * self._size]
            measured = self._criterion.measure(rows).double().cpu()
            self._calls[group].append(by_image(measured, self._size).mean(1))

    def end(self) -> None:
        if self._size:
            for group, calls in self._calls.items():
                self._values[group].append(stacked(group, calls).mean(0))
        if self._left is not None:
            self._left -= self._size

    def measured(self) -> Measured:
        values = {group: torch.cat(parts) for group, parts in self._values.items()}
        return Measured(values=values, labels=together(self._labels))


def maps(module: nn.Module, read: Tensor, index: Indices) -> Tensor:
    """Returns the maps of a group's channels in what a layer reads.

    Args:
        module: the layer.
        read: its input.
        index: the group's channels in it, `(channels, positions)`. Several positions are a
            flattened map: a square one where their number is a square.

    Returns:
        `(images, channels, height, width)`.
    """
    read = read.movedim(channel_dim(module), 1)
    found = read[:, torch.from_numpy(index)]  # (images, channels, positions, ...)
    if found.ndim > 3:
        return found.flatten(2, -2)
    side = isqrt(index.shape[1])
    shape = (side, side) if side * side == index.shape[1] else (1, index.shape[1])
    return found.reshape(*found.shape[:2], *shape)


class MeanActivation(OnActivations):
    """Mean absolute activation.

    `s_j` is the mean over images and positions of `|a_j|`.
    """

    source = "Tan and Motani 2020 (DropNet); Roy et al. 2020, arXiv 2003.02800"

    def measure(self, maps: Tensor) -> Tensor:
        """See `OnActivations.measure`."""
        return maps.abs().mean((2, 3))


class APoZ(OnActivations):
    """Share of positions where the activation is not zero.

    One minus the average percentage of zeros. Without a ReLU before the readers no value is
    exactly zero, and all channels score one.
    """

    source = "Hu et al. 2016 (network trimming), arXiv 1607.03250"
    normaliser = Normaliser.NONE

    def measure(self, maps: Tensor) -> Tensor:
        """See `OnActivations.measure`."""
        return (maps != 0).float().mean((2, 3))


class HRank(OnActivations):
    """Mean rank of the activation map, as a matrix.

    A rank is a singular value decomposition of each map, so 64 images are measured; the authors
    take 5 batches, and find the mean to change little from batch to batch. Behind global pooling
    a map is one number, and its rank says only whether it is zero.
    """

    source = "Lin et al. 2020, arXiv 2002.10179"
    normaliser = Normaliser.MAX  # a rank is at most the map's smaller side
    images = 64

    def measure(self, maps: Tensor) -> Tensor:
        """See `OnActivations.measure`."""
        ranks: Tensor = torch.linalg.matrix_rank(maps)
        return ranks.float()


class ClassResponse(OnActivations):
    """Mean activation for the class that a channel answers to most, against all others.

    The score by which weightless networks lose their filters, read for channels:
    `s_j = max_k sum_x a_j(x) ((K - 1) [y = k] - [y != k]) / images`, with `a_j` the mean of
    `|activation|` over positions and K classes.
    """

    source = "Susskind et al. 2022 (weightless networks), ESANN; for channels ours"
    needs = Needs.LABELS

    def measure(self, maps: Tensor) -> Tensor:
        """See `OnActivations.measure`."""
        return maps.abs().mean((2, 3))

    def combine(self, values: Tensor, labels: Labels) -> Tensor:
        """See `OnActivations.combine`.

        Raises:
            InputError: the labels are no classes.
        """
        if not isinstance(labels, Tensor) or not are_classes(labels):
            raise InputError(
                f"the criterion class_response reads classes, and labels are {kind_of(labels)};"
                " choose another"
            )
        classes = torch.unique(labels)
        own: Tensor = (labels == classes[:, None]).to(values) @ values
        return (len(classes) * own - values.sum(0)).amax(0) / len(values)
