"""Evaluations that only sleep; apart, so that workers import little."""

import time
from dataclasses import dataclass

import numpy as np

from evosearch.space.mask import Mask
from evosearch.study.scores import ImageScores

IMAGES = 100
SLEEP = 0.1
"""Seconds of an evaluation."""


class Sleeper:
    """Sleeps, and gives every mask the same scores."""

    images = IMAGES

    def prepare(self, *, errors: bool) -> None:
        """See `Evaluator.prepare`; there is nothing to share."""

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:  # noqa: ARG002
        """See `Evaluator.image_scores`."""
        time.sleep(SLEEP)
        return ImageScores(losses=np.ones(stop - start), metrics=np.ones(stop - start))

    def compensated_error(self, mask: Mask) -> float:  # noqa: ARG002
        """See `Evaluator.compensated_error`."""
        time.sleep(SLEEP)
        return 1.0


@dataclass(frozen=True)
class Sleepers:
    """Gives a worker an evaluator that sleeps."""

    def __call__(self, worker: int) -> Sleeper:  # noqa: ARG002
        """See `parallel.Build`."""
        return Sleeper()
