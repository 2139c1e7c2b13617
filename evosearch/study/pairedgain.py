"""The gain of one network over another on the same images, with an interval that holds exactly."""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from evosearch.study.dropbound import drop_bound

ERROR = 0.05
"""That the interval may miss the true gain with, half of it on either side."""


@final
@dataclass(frozen=True, kw_only=True)
class PairedGain:
    """By how much the mean metric of one network exceeds another's.

    Attributes:
        images: that both were measured on.
        gained: those that the first alone gets right; of a metric that is no share of images, the
            sum of what rises.
        lost: those that the other alone gets right, likewise.
        low: lower end of the 95 % interval, as a share; see `dropbound`.
        high: its upper end.
    """

    images: int
    gained: float
    lost: float
    low: float
    high: float

    @classmethod
    def of(cls, other: NDArray[np.float64], first: NDArray[np.float64]) -> Self:
        """Returns the gain of the first network over the other.

        Args:
            other: its metric of each image, in [0, 1], `(images,)`.
            first: likewise.

        Raises:
            InputError: there are no images.
        """
        change = first - other
        return cls(
            images=len(change),
            gained=float(change.clip(0).sum()),
            lost=float((-change).clip(0).sum()),
            low=-drop_bound(other, first, 1 - ERROR / 2),
            high=drop_bound(first, other, 1 - ERROR / 2),
        )

    @property
    def mean(self) -> float:
        """By how much, as a share."""
        return (self.gained - self.lost) / self.images

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.low <= 0 <= self.high

    def __str__(self) -> str:
        mean, low, high = (100 * share for share in (self.mean, self.low, self.high))
        return (
            f"{mean:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}) on {self.images}"
            f" confirmation images, {self.gained:g} gained and {self.lost:g} lost"
        )
