"""The records of an epoch and of a whole fine-tuning, and the callback that is told of them.

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


@final
@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a fine-tuning went.

    Attributes:
        history: one record per epoch, the first of the network before its first step.
        best_epoch: the epoch of least loss on the search split, whose weights the student has.
        attention_layers: the modules whose attention maps were matched.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    attention_layers: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Distillation(best epoch {self.best_epoch} of {len(self.history) - 1})"

    @property
    def best(self) -> EpochRecord:
        """The record of the best epoch."""
        return self.history[self.best_epoch]
