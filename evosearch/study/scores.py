"""The scores of a network on some images: one by one, in sum, and against another network's."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError
from evosearch.study.intervals import wilson_interval

NORMAL = 1.959963984540054
"""Standard errors on each side of a 95 % interval."""


@final
@dataclass(frozen=True, kw_only=True)
class Score:
    """What a network is worth on some images.

    Attributes:
        loss: mean over images; of cross-entropy in nats, where the task has no loss of its own.
        loss_se: its standard error over images.
        accuracy: share of images classified right, or the mean of the task's own metric; in
            [0, 1].
        accuracy_se: its standard error over images.
        images: number of images.
    """

    loss: float
    loss_se: float
    accuracy: float
    accuracy_se: float
    images: int

    def __str__(self) -> str:
        return f"loss {self.loss:.3f} ±{self.loss_se:.3f}, accuracy {self.accuracy_text} %"

    def __repr__(self) -> str:
        return f"Score({self}, {self.images} images)"

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, which one of 0 or 1 has a width too."""
        return wilson_interval(self.accuracy, self.images)

    @property
    def accuracy_text(self) -> str:
        """The accuracy with its 95 % interval in percent: "99.43 (98.0 to 99.8)"."""
        low, high = self.accuracy_interval
        return f"{100 * self.accuracy:.2f} ({100 * low:.1f} to {100 * high:.1f})"


@final
@dataclass(frozen=True, kw_only=True)
class Difference:
    """By how much one network exceeds another, over the same images.

    Attributes:
        mean: over images.
        error: its standard error over images.
    """

    mean: float
    error: float

    @classmethod
    def between(cls, first: NDArray[np.float64], second: NDArray[np.float64]) -> "Difference":
        """Returns the difference of two values per image, `(images,)` each."""
        mean, error = _mean(first - second)
        return cls(mean=mean, error=error)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.mean - NORMAL * self.error, self.mean + NORMAL * self.error

    @property
    def is_tie(self) -> bool:
        """Whether the interval contains 0."""
        low, high = self.interval
        return low <= 0 <= high


@final
@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """The outcome of every image, which lets two networks be compared image by image.

    Attributes:
        losses: of the task, `(images,)`.
        metrics: of the task, `(images,)`, in [0, 1]; for classes 1 where right, 0 where wrong.
    """

    losses: NDArray[np.float64]
    metrics: NDArray[np.float64]

    @property
    def score(self) -> Score:
        """Means and standard errors (sample standard deviation over the root of the count).

        Raises:
            InputError: there are fewer than two images.
        """
        loss, loss_se = _mean(self.losses)
        accuracy, accuracy_se = _mean(self.metrics)
        return Score(
            loss=loss,
            loss_se=loss_se,
            accuracy=accuracy,
            accuracy_se=accuracy_se,
            images=len(self.losses),
        )

    def between(self, start: int, stop: int) -> "ImageScores":
        """Returns the outcomes of some images alone."""
        return ImageScores(losses=self.losses[start:stop], metrics=self.metrics[start:stop])

    def then(self, more: "ImageScores") -> "ImageScores":
        """Returns these outcomes with those of further images behind them."""
        return ImageScores(
            losses=np.concatenate([self.losses, more.losses]),
            metrics=np.concatenate([self.metrics, more.metrics]),
        )

    def loss_above(self, other: "ImageScores") -> Difference:
        """Returns by how much the loss exceeds that of another network.

        The difference is taken image by image, over the images that both have from the first
        on; what makes an image hard for both cancels.
        """
        images = min(len(self.losses), len(other.losses))
        return Difference.between(self.losses[:images], other.losses[:images])


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    count = len(values)
    if count < 2:
        raise InputError(f"a score needs at least two images, got {count}")
    return float(values.mean()), float(values.std(ddof=1) / count**0.5)
