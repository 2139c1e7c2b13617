"""The record of one epoch of a training, and the callback that is told of it.

Imported without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from evosearch.study.scores import Score


@final
@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of a training.

    Attributes:
        epoch: from 1; 0 is the network before its first step.
        epochs: planned in all.
        train_loss: mean of the training objective over the epoch's images; none at epoch 0.
        search: score on the search split after the epoch, where one was given.
        seconds: since training began.
        averaged: whether the score is of weights averaged over the last steps.
    """

    epoch: int
    epochs: int
    train_loss: float | None
    search: Score | None
    seconds: float
    averaged: bool = False


OnEpoch = Callable[[EpochRecord], None]
