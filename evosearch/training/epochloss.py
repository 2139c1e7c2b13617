"""The mean objective of an epoch, summed over its steps without waiting for each of them."""

import math
from typing import final

import torch
from torch import Tensor

from evosearch.errors import EvaluationError
from evosearch.training.schedule import Schedule

UNREAD = 100
"""Steps whose objectives stay on the device, at most: one that diverged goes on no longer."""


@final
class EpochLoss:
    """The objectives of an epoch's steps, read a hundred at a time.

    A device works off what it is told while the program goes on to the next step; to read a value
    is to wait until all before it is done.
    """

    def __init__(self, schedule: Schedule, epoch: int) -> None:
        """Begins with no step.

        Args:
            schedule: of the training.
            epoch: from 1.
        """
        self._schedule, self._epoch = schedule, epoch
        self._unread: list[tuple[Tensor, int]] = []
        self._total, self._images = 0.0, 0

    def add(self, loss: Tensor, images: int) -> None:
        """Takes the objective of a step.

        Args:
            loss: the mean over its images: one element, without gradient.
            images: how many they are.

        Raises:
            EvaluationError: see `require_finite`.
        """
        self._unread.append((loss.reshape(1), images))
        if len(self._unread) == UNREAD:
            self.require_finite()

    def require_finite(self) -> None:
        """Waits for the steps so far.

        Raises:
            EvaluationError: the objective of one is not finite.
        """
        if not self._unread:
            return
        losses, counts = zip(*self._unread, strict=True)
        self._unread = []
        for value, images in zip(torch.cat(losses).tolist(), counts, strict=True):
            if not math.isfinite(value):
                raise EvaluationError(
                    f"training diverged in epoch {self._epoch} of {self._schedule.epochs}"
                    f" (loss {value}); lower lr = {self._schedule.lr:g}"
                )
            self._total += value * images
            self._images += images

    def mean(self) -> float:
        """Returns the mean over all images so far.

        Raises:
            EvaluationError: see `require_finite`.
        """
        self.require_finite()
        return self._total / self._images
