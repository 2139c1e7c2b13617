"""The protocol of what takes part in a training: losses, cuts, the best epoch."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Part:
    """What takes part in a training beside its objective; what is not overridden does nothing.

    A part owns its settings and its state. What its state does not hold is determined by the
    network, the mask in force and the share of steps that are done, so that a training that was
    killed goes on as it would have.
    """

    def before_step(self, t: float) -> None:
        """Is called before every step; the place for a cut.

        Args:
            t: share of the training's steps that are done, in [0, 1).
        """

    def term(self) -> Tensor | None:
        """Returns what is added to the objective of a batch, a scalar with gradient."""
        return None

    def after_step(self, images: int) -> None:
        """Is called after every step, with how many images it was made on."""

    def after_cut(self) -> None:
        """Is called when the network has become a smaller one."""

    def state(self) -> dict[str, Any]:
        """Returns what the steps to come depend on, as tensors and plain values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to what `state` gave; the network has been cut as it was then."""
