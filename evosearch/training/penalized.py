"""The part of a training that adds penalties to its objective."""

from collections.abc import Mapping
from typing import final

from torch import Tensor

from evosearch.training.parts import Host, Moment, Part
from evosearch.training.penalties import Penalties
from evosearch.training.wiring import Wired


@final
class Penalized(Part):
    """Penalises the weights; built anew for the network at each epoch and after each cut."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Takes each penalty's weight beside the objective, by name."""
        self._weights = weights

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
        total = self._penalties()
        assert isinstance(total, Tensor)  # there is at least one
        return total

    def after_step(self, images: int) -> None:  # noqa: ARG002
        """See `Part.after_step`."""
        self._penalties.after_step()

    def _build(self) -> None:
        discovery = self._training.discovery
        assert discovery is not None
        network = Wired(
            model=self._training.model, groups=discovery.space.groups, layers=discovery.layers
        )
        self._penalties = Penalties(self._weights, network)
