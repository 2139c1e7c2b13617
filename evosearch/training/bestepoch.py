"""The best epoch of a training, by the loss on the search split."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, final

from torch import Tensor, nn

from evosearch.data.splits import SearchSplit
from evosearch.models.weights import load_state
from evosearch.space.mask import Mask
from evosearch.study.scores import Score
from evosearch.tasks.scoring import score
from evosearch.tasks.task import Task
from evosearch.training.epochs import EpochRecord, OnEpoch
from evosearch.training.parts import Host, Part

ROUNDING = 1e-9
"""How far an accuracy may be under the least: differences of shares are no exact numbers."""


@final
class BestEpoch(Part):
    """Scores a network epoch by epoch and remembers the weights of its best.

    A network that is cut has no best epoch yet: what was best had other shapes. Under a least
    accuracy, what is kept is the last epoch that had it, also of a network that is cut after it.

    Attributes:
        epoch: what is kept.
        mask: its channels, where the training knows its groups.
        history: all epochs, the network before the first step among them.
    """

    def __init__(
        self,
        model: nn.Module,
        search: SearchSplit,
        epochs: int,
        on_epoch: OnEpoch | None,
        task: Task,
        *,
        begun: int = 0,
        least_accuracy: float | None = None,
    ) -> None:
        """Takes what is trained and what it is scored on.

        Args:
            model: what is trained.
            search: what it is scored on.
            epochs: of the training.
            on_epoch: told of each.
            task: what outputs are judged by.
            begun: epochs that count as done.
            least_accuracy: what is kept has it, in [0, 1]; by default it has the least loss.
        """
        self._model, self._search, self._epochs = model, search, epochs
        self._on_epoch, self._task, self._begun = on_epoch, task, begun
        self._least_accuracy = least_accuracy
        self._began = time.perf_counter()
        self._loss = math.inf
        self._weights: dict[str, Tensor] = {}
        self.mask: Mask | None = None
        self.epoch = begun
        self.history: list[EpochRecord] = []

    def joined(self, training: Host) -> None:
        """See `Part.joined`."""
        self._training = training

    def record(
        self, train_loss: float | None, average: Callable[[], object] | None = None
    ) -> None:
        """Scores the network after an epoch.

        Args:
            train_loss: of the epoch; None before the first step.
            average: gives the network averaged weights, which are scored after its own; the
                record is of the better ones.
        """
        result, averaged = self._scored(), False
        if average is not None:
            average()
            mean = self._scored()
            averaged = mean.loss < result.loss
            result = mean if averaged else result
        self.history.append(
            EpochRecord(
                epoch=self._begun + len(self.history),
                epochs=self._epochs,
                train_loss=train_loss,
                search=result,
                seconds=time.perf_counter() - self._began,
                averaged=averaged,
            )
        )
        if self._on_epoch is not None:
            self._on_epoch(self.history[-1])

    def _scored(self) -> Score:
        """Returns the network's score, and keeps its weights if they are the best so far."""
        result = score(self._model, self._search, task=self._task)
        if self._is_better(result):
            self._loss, self.epoch = result.loss, self._begun + len(self.history)
            self.mask = self._training.mask
            state = self._model.state_dict()
            self._weights = {name: tensor.detach().clone() for name, tensor in state.items()}
        return result

    def _is_better(self, result: Score) -> bool:
        if self._least_accuracy is not None:
            return result.accuracy >= self._least_accuracy - ROUNDING
        return result.loss < self._loss

    def state(self) -> dict[str, Any]:
        """Returns the epochs so far and the best weights, as tensors and plain values."""
        return {
            "loss": self._loss,
            "epoch": self.epoch,
            "weights": self._weights,
            "mask": None if self.mask is None else self.mask.to_json(),
            "history": [asdict(record) for record in self.history],
        }

    def after_cut(self) -> None:
        """Forgets what was best, where nothing makes it better than what comes."""
        if self._least_accuracy is None:
            self._loss, self._weights = math.inf, {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to what `state` gave."""
        self._loss, self.epoch, self._weights = state["loss"], state["epoch"], state["weights"]
        if state["mask"] is not None and (whole := self._training.mask) is not None:
            sizes = {name: bits.size for name, bits in whole.items()}
            self.mask = Mask.from_json(state["mask"], sizes)
        self.history = [
            EpochRecord(**{**record, "search": Score(**record["search"])})
            for record in state["history"]
        ]
        if self.history:
            self._began -= self.history[-1].seconds

    @property
    def accuracy(self) -> float:
        """That of the last epoch, on the search split."""
        result = self.history[-1].search
        assert result is not None
        return result.accuracy

    def keep_best(self, model: nn.Module | None = None) -> None:
        """Gives the network, or another with the channels of then, the weights that are kept."""
        model = self._model if model is None else model
        load_state(model, self._weights)
        model.eval()
