"""The part of a training that adds penalties to its objective."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from evosearch.machine import device_of
from evosearch.training.parts import Host, Moment, Part
from evosearch.training.penalties import PENALTIES, Penalties
from evosearch.training.wiring import Wired


@final
class Penalized(Part):
    """Penalises the weights; built anew for the network at each epoch and after each cut."""

    def __init__(
        self, weights: Mapping[str, float], tolerance: Callable[[], float] = lambda: 1.0
    ) -> None:
        """Takes what is added to the objective.

        Args:
            weights: each penalty's weight beside the objective, by name.
            tolerance: the share that is left of a tolerated drop, by which some are eased.
        """
        self._weights, self._tolerance = weights, tolerance

    def joined(self, training: Host) -> None:
        """See `Part.joined`; the training must know its channel groups."""
        self._training = training
        self._build()

    def undecayed(self) -> frozenset[str]:
        """See `Part.undecayed`."""
        return self._penalties.undecayed

    def before_step(self, moment: Moment) -> None:
        """See `Part.before_step`."""
        if moment.begins_epoch:
            self._build()

    def after_cut(self) -> None:
        """See `Part.after_cut`."""
        self._build()

    def term(self) -> Tensor:
        """See `Part.term`."""
        place = device_of(self._training.model)
        with torch.autocast(place.type, enabled=False):  # products of weights in their own type
            total = self._penalties()
        assert isinstance(total, Tensor)  # there is at least one
        return total

    def after_step(self, images: int) -> None:  # noqa: ARG002
        """See `Part.after_step`."""
        self._penalties.after_step()

    def _build(self) -> None:
        discovery = self._training.discovery
        if discovery is None:
            raise ValueError("penalties need the network's channel groups")
        network = Wired.of(self._training.model, discovery)
        left = self._tolerance()
        weights = {
            name: weight * (left if PENALTIES[name].eased else 1.0)
            for name, weight in self._weights.items()
        }
        self._penalties = Penalties(weights, network)
