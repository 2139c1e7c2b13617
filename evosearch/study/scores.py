"""The scores of a network on some images: one by one, in sum, and against another network's.

A metric is one number for each image, whose mean counts; or it is *pooled*: computed from
statistics of all images together, as a mean IoU is. The error of a pooled one is the bootstrap's
(Efron 1979): the standard deviation over choices of as many images, drawn with replacement.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError
from evosearch.seeding import Stream, generator
from evosearch.study.intervals import wilson_interval

Reals = NDArray[np.float64]

NORMAL = 1.959963984540054
"""Standard errors on each side of a 95 % interval."""
RESAMPLES = 200
"""Choices of images that the error of a pooled metric is taken over: it is then known to 5 %."""


@final
@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a metric is called, and how what it gives of images becomes one number.

    Attributes:
        name: as tables show it.
        pooled: statistics of any choice of images, `(images, numbers)` with NaN behind rows that
            are shorter -> value in [0, 1]; None where the mean over images is the value.
        chosen: statistics, and how often each choice of images has each, `(choices, images)` ->
            the values of all choices, `(choices,)`; None where `pooled` is called for each.
    """

    name: str
    pooled: Callable[[Reals], float] | None = None
    chosen: Callable[[Reals, NDArray[np.int64]], Reals] | None = None

    def value(self, statistics: Reals) -> float:
        """Returns the value of a pooled metric.

        Raises:
            InputError: it is not in [0, 1].
        """
        assert self.pooled is not None
        value = float(self.pooled(statistics))
        if not 0 <= value <= 1:
            raise InputError(f"[task] pooled: expected a value in [0, 1], got {value:g}")
        return value

    def resampled(self, statistics: Reals) -> Reals:
        """Returns the values on choices of the images, the same for all networks."""
        images = len(statistics)
        if self.chosen is None:
            return np.array([self.value(statistics[chosen]) for chosen in _choices(images)])
        counts = [np.bincount(chosen, minlength=images) for chosen in _choices(images)]
        return self.chosen(statistics, np.stack(counts))


ACCURACY = Measure(name="accuracy")
"""The share of images that are classified right."""


@final
@dataclass(frozen=True, kw_only=True)
class Score:
    """What a network is worth on some images.

    Attributes:
        loss: mean over images; of cross-entropy in nats, where the task has no loss of its own.
        loss_se: its standard error over images.
        accuracy: the task's metric, in [0, 1]: what `metric` names.
        accuracy_se: its standard error over images.
        images: number of images.
        metric: what the metric is called.
        pooled: whether it is computed from all images together, and is no mean over them.
    """

    loss: float
    loss_se: float
    accuracy: float
    accuracy_se: float
    images: int
    metric: str = ACCURACY.name
    pooled: bool = False

    def __str__(self) -> str:
        return f"loss {self.loss:.3f} ±{self.loss_se:.3f}, {self.metric} {self.accuracy_text} %"

    def __repr__(self) -> str:
        return f"Score({self}, {self.images} images)"

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % interval of the metric; of a mean, one of 0 or 1 has a width too."""
        if self.pooled:
            reach = NORMAL * self.accuracy_se
            return max(0.0, self.accuracy - reach), min(1.0, self.accuracy + reach)
        return wilson_interval(self.accuracy, self.images)

    @property
    def accuracy_text(self) -> str:
        """The metric with its 95 % interval in percent: "99.43 (98.0 to 99.8)"."""
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
    def between(cls, first: Reals, second: Reals) -> "Difference":
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
        metrics: of the task, `(images,)`, in [0, 1]; for classes 1 where right, 0 where wrong. Of
            a pooled metric its statistics, `(images, numbers)`.
        measure: what the metric is, and how it is pooled.
    """

    losses: Reals
    metrics: Reals
    measure: Measure = ACCURACY

    @property
    def loss(self) -> float:
        """The mean loss.

        Raises:
            InputError: there are fewer than two images.
        """
        return _mean(self.losses)[0]

    @property
    def score(self) -> Score:
        """Means and standard errors (sample standard deviation over the root of the count).

        The value and the error of a pooled metric come from all images together.

        Raises:
            InputError: there are fewer than two images.
        """
        loss, loss_se = _mean(self.losses)
        if self.measure.pooled is None:
            accuracy, accuracy_se = _mean(self.metrics)
        else:
            accuracy = self.measure.value(self.metrics)
            accuracy_se = float(self.measure.resampled(self.metrics).std(ddof=1))
        return Score(
            loss=loss,
            loss_se=loss_se,
            accuracy=accuracy,
            accuracy_se=accuracy_se,
            images=len(self.losses),
            metric=self.measure.name,
            pooled=self.measure.pooled is not None,
        )

    def between(self, start: int, stop: int) -> "ImageScores":
        """Returns the outcomes of some images alone."""
        return ImageScores(
            losses=self.losses[start:stop],
            metrics=self.metrics[start:stop],
            measure=self.measure,
        )

    def then(self, more: "ImageScores") -> "ImageScores":
        """Returns these outcomes with those of further images behind them."""
        return ImageScores(
            losses=np.concatenate([self.losses, more.losses]),
            metrics=joined([self.metrics, more.metrics]),
            measure=self.measure,
        )

    def loss_above(self, other: "ImageScores") -> Difference:
        """Returns by how much the loss exceeds that of another network.

        The difference is taken image by image, over the images that both have from the first
        on; what makes an image hard for both cancels.
        """
        images = min(len(self.losses), len(other.losses))
        return Difference.between(self.losses[:images], other.losses[:images])

    def metric_above(self, other: "ImageScores") -> Difference:
        """Returns by how much the metric exceeds that of another network on the same images.

        That of a pooled one is taken choice by choice of the images, so that here too what is
        hard for both cancels.
        """
        if self.measure.pooled is None:
            return Difference.between(self.metrics, other.metrics)
        mean = self.measure.value(self.metrics) - self.measure.value(other.metrics)
        above = self.measure.resampled(self.metrics) - self.measure.resampled(other.metrics)
        return Difference(mean=mean, error=float(above.std(ddof=1)))


def joined(parts: Sequence[Reals]) -> Reals:
    """Returns what a metric gave of images in a row; shorter rows get NaN behind them."""
    if parts[0].ndim == 1:
        return np.concatenate(parts)
    width = max(part.shape[1] for part in parts)
    fill = [((0, 0), (0, width - part.shape[1])) for part in parts]
    padded = [np.pad(p, f, constant_values=np.nan) for p, f in zip(parts, fill, strict=True)]
    return np.concatenate(padded)


@lru_cache(maxsize=8)
def _choices(images: int) -> NDArray[np.int64]:
    """Returns choices of images with replacement, `(RESAMPLES, images)`."""
    return generator(0, Stream.BOOTSTRAP).integers(images, size=(RESAMPLES, images))


def _mean(values: Reals) -> tuple[float, float]:
    count = len(values)
    if count < 2:
        raise InputError(f"a score needs at least two images, got {count}")
    return float(values.mean()), float(values.std(ddof=1) / count**0.5)
