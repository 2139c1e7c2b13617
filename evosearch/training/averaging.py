"""The average of a training's weights over the last of its steps."""

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn

from evosearch.training.parts import Host, Moment, Part

SHARE = 0.25
"""Of the steps of a training, the last ones, whose weights are averaged."""


@final
class Averaging(Part):
    """Keeps the mean of the weights after each of the last steps, all counted alike.

    Izmailov et al. 2018 (arXiv 1803.05407, section 3), at the learning rates of the schedule. A
    cut begins the mean anew.
    """

    def __init__(self) -> None:
        """Begins with no step."""
        self._mean = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        self._due = False
        self._steps = 0
        self._weights: list[Tensor] = []

    def joined(self, training: Host) -> None:
        """See `Part.joined`."""
        self._training = training

    def before_step(self, moment: Moment) -> None:
        """Notes whether the step is one of the last."""
        self._due = moment.t >= 1 - SHARE

    def after_step(self, images: int) -> None:  # noqa: ARG002  (the protocol's)
        """Takes the weights into the mean."""
        if not self._due:
            return
        weights = self._learned()
        if self._steps:
            self._mean(self._weights, weights, self._steps)
        else:
            self._weights = [weight.clone() for weight in weights]
        self._steps += 1

    def after_cut(self) -> None:
        """Forgets the mean, whose weights had other shapes."""
        self._steps, self._weights = 0, []

    def take_over(self) -> None:
        """Gives the model the mean in place of its weights, and the BatchNorm statistics of it.

        Statistics do not average: they are measured anew. Without a step all stays as it is.
        """
        if not self._steps:
            return
        for weight, mean in zip(self._learned(), self._weights, strict=True):
            weight.copy_(mean)
        self._training.measure_norms()

    def state(self) -> dict[str, Any]:
        """See `Part.state`."""
        return {"steps": self._steps, "weights": self._weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Part.restore`."""
        self._steps = state["steps"]
        weights = self._learned() if self._steps else []
        self._weights = [
            mean.to(weight.device) for weight, mean in zip(weights, state["weights"], strict=True)
        ]

    def _learned(self) -> list[Tensor]:
        weights = self._training.model.parameters()
        return [weight.detach() for weight in weights if weight.requires_grad]
