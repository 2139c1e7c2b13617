"""Builder of compact networks: from a mask to weights and statistics that fit it."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar, final

import torch
from torch import nn

from evosearch.calling import Inputs, joined, pieces
from evosearch.memory import largest_fitting, memory_needed
from evosearch.models.copying import copied
from evosearch.models.precision import Numerics
from evosearch.refit.compensation import Compensation
from evosearch.refit.norms import recalibrate
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact, dropped_positions
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.tracing.walk import Layer

Build = Literal["compensated", "elastic", "recalibrated"]

T = TypeVar("T")

STATISTICS = "calibration"
"""The purpose that the batches of statistics are remembered for."""
LARGEST_MAP = 2**26
"""Elements of one layer's output for all images that a network is compensated on, at most: 256
MiB, of which one pass holds a few at a time."""
LARGEST_BATCH_MAP = 2**25
"""The same for a batch of the passes that can be cut into batches."""


@final
@dataclass(frozen=True, kw_only=True)
class ElasticWeights:
    """What one training for many plans changed, and what tells which of them are better for it.

    Attributes:
        weights: a copy of the base network. What its weights changed by is added to those of a
            compensated network, at the channels that it keeps.
        loss: a candidate -> its loss on images that it was not built on; infinite if it has none.
    """

    weights: nn.Module
    loss: Callable[[nn.Module], float]


@final
class Builder:
    """Builds the compact networks of masks, for scoring and for keeps."""

    def __init__(
        self,
        *,
        model: nn.Module,
        discovery: Discovery,
        batches: Sequence[Inputs],
        images: int,
        build: Build,
        numerics: Numerics,
        seed: int,
        rescale: bool = False,
        elastic: ElasticWeights | None = None,
    ) -> None:
        """Takes what networks are built from.

        Args:
            model: the base network, in eval mode; not changed.
            discovery: its proven groups and its layers.
            batches: calibration images on the model's device.
            images: how many of them candidates are built on; compensation takes no more than
                `LARGEST_MAP` allows.
            build: whether candidates' weights are refitted, or their statistics alone; "elastic"
                changes refitted ones where that makes them better.
            numerics: what candidates compute in.
            seed: the run's.
            rescale: whether refitted outputs are given the variances that they had.
            elastic: weights whose changes networks can take over.
        """
        self._elastic = elastic
        self._changes = None if elastic is None else _changes(model, elastic.weights)
        self._are_elastic: dict[str, bool] = {}  # by the masks' keys, which are small
        self._rescale = rescale
        self._model, self._discovery, self._seed = model, discovery, seed
        self._batches, self._build = batches, build
        self._device = batches[0].device
        self.numerics = numerics
        few = _first(batches, images)
        parts = pieces(few, math.ceil(len(few) / len(batches[0])))
        self._few = [numerics.images(part) for part in parts]
        self._whole = self._at_once = len(batches[0])

    def prepare(self) -> None:
        """Measures once what all candidates are built with."""
        if self._build != "recalibrated":
            with self._one_pass():
                _ = self._quick

    def candidate(self, mask: Mask) -> nn.Module:
        """Returns the network that a mask is scored by, in the layout of candidates.

        Raises:
            MemoryExhausted: it does not fit. Compensation takes no fewer images then: those
                before had more, and are no longer to be compared with.
        """
        if mask == self._discovery.space.full_mask():
            return self.numerics.network(self._compact(mask))
        if self._build == "recalibrated":
            return self._recalibrated(mask)
        if self._elastic is None:
            return self._compensated(mask)
        return self._better(mask, self._elastic)

    def final(self, mask: Mask) -> nn.Module:
        """Returns the network that a mask is worth keeping as, in float32.

        It is compensated on all calibration images, or on as many as `LARGEST_MAP` allows; elastic
        weights change it where that is better, and BatchNorm statistics are of all images then.
        The full mask gives a copy of the base network, exactly.
        """
        is_elastic = self.is_elastic(mask)

        def built() -> nn.Module:
            network = self._compact(mask)
            self._compensate(network, mask, self.thorough)
            if is_elastic:
                self._change(network, mask)
                recalibrate(network, self._batches)
            return network

        return self._fitting(built)

    def plain(self, mask: Mask, model: nn.Module | None = None) -> nn.Module:
        """Returns the network of a mask, recalibrated and not compensated, in float32.

        Args:
            mask: the channels that stay.
            model: what they are cut from, where it is not the base network.
        """
        network = self._compact(mask, model)
        self._fitting(lambda: recalibrate(network, self._batches))
        return network

    def is_elastic(self, mask: Mask) -> bool:
        """Returns whether elastic weights change the network of a mask.

        They do where the changed network has no more loss than the compensated one; both are
        built where that is not known. The full mask is the base network.
        """
        if self._elastic is None or mask == self._discovery.space.full_mask():
            return False
        if mask.key not in self._are_elastic:
            self._better(mask, self._elastic)
        return self._are_elastic[mask.key]

    def _better(self, mask: Mask, elastic: ElasticWeights) -> nn.Module:
        """Returns the compensated network of a mask or the changed one, and remembers which."""
        known, network = self._are_elastic.get(mask.key), self._compensated(mask)
        if known is False:
            return network
        changed = network if known else copied(network)
        self._change(changed, mask)
        with self.numerics.computing(self._device):
            self._fitting(lambda: recalibrate(changed, self._few))
        if known is None:
            known = elastic.loss(changed) <= elastic.loss(network)
            self._are_elastic[mask.key] = known
        return changed if known else network

    def _change(self, network: nn.Module, mask: Mask) -> None:
        """Adds the changes of elastic weights to the weights of a mask's network, in place."""
        part = self._compact(mask, self._changes)
        with torch.no_grad():
            for own, change in zip(network.parameters(), part.parameters(), strict=True):
                own.add_(change)

    def _recalibrated(self, mask: Mask) -> nn.Module:
        network = self._compact(mask)
        with self.numerics.computing(self._device):
            self._fitting(lambda: recalibrate(network, self._few))
        return self.numerics.network(network)

    def _compensated(self, mask: Mask) -> nn.Module:
        network = self.numerics.network(self._compact(mask))
        with self.numerics.computing(self._device), self._one_pass():
            self._compensate(network, mask, self._quick)
        return network

    def _fitting(self, work: Callable[[], T]) -> T:
        """Returns what work gives, with fewer images at once where memory is short.

        The network that is kept is then compensated on fewer in all: its one pass cannot be cut.
        """

        def attempt(size: int) -> T:
            if size != self._at_once:
                self._at_once = size
                self._batches = divided(self._batches, size)
                self._few = divided(self._few, size)
                vars(self).pop("thorough", None)
            return work()

        return largest_fitting(STATISTICS, self._device, self._whole, attempt, least=2)

    def _one_pass(self) -> AbstractContextManager[None]:
        """Names the setting where compensation, which takes all its images at once, fails."""
        count = sum(len(batch) for batch in self._few)
        return memory_needed(
            f"candidates compensated on {count} images at once, lower [search.evaluator]"
            " build_images"
        )

    def _compact(self, mask: Mask, model: nn.Module | None = None) -> nn.Module:
        return compact(model or self._model, self._discovery.space.groups, mask).eval()

    def _compensate(self, network: nn.Module, mask: Mask, compensation: Compensation) -> None:
        drops = dropped_positions(self._discovery.space.groups, mask)
        if drops:
            compensation.apply(network, drops)

    @cached_property
    def _quick(self) -> Compensation:
        with self.numerics.computing(self._device):
            return self._compensation(self._few, 1.0)

    @cached_property
    def thorough(self) -> Compensation:
        """What refits networks that are worth keeping: on all images, as `final` has them."""
        return self._compensation(self._batches, self._at_once / self._whole)

    def _compensation(self, batches: Sequence[Inputs], share: float) -> Compensation:
        layers = self._discovery.layers
        given = sum(len(batch) for batch in batches)
        most = min(given, images_within(LARGEST_MAP, self._model, layers))
        images = _first(batches, max(2, int(share * most)))
        return Compensation(self._model, layers, images, self._seed, rescale=self._rescale)


def _changes(model: nn.Module, weights: nn.Module) -> nn.Module:
    """Returns a copy of a network whose parameters are what other weights differ by from its own.

    What did not change is zero there, also where it is infinite.
    """
    result = copied(weights)
    with torch.no_grad():
        for change, old in zip(result.parameters(), model.parameters(), strict=True):
            change.copy_(torch.where(change == old, torch.zeros_like(change), change - old))
    return result


def divided(batches: Sequence[Inputs], size: int) -> list[Inputs]:
    """Returns batches of at most `size` images each, as views; none of a single image."""
    return [
        part
        for batch in batches
        for part in pieces(batch, max(1, min(math.ceil(len(batch) / size), len(batch) // 2)))
    ]


def images_within(elements: int, model: nn.Module, layers: Sequence[Layer]) -> int:
    """Returns for how many images no layer's output has more than so many elements; at least 2."""
    largest = max(
        layer.outputs * model.get_parameter(layer.weight).shape[layer.writes] for layer in layers
    )
    return max(2, elements // largest)


def _first(batches: Sequence[Inputs], count: int) -> Inputs:
    """Returns the first images of batches."""
    found: list[Inputs] = []
    left = count
    for batch in batches:
        found.append(batch[:left])
        left -= len(found[-1])
        if not left:
            break
    return joined(found)
