"""The best epoch of a training, by the loss on the search split."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, final

from torch import Tensor, nn

from evosearch.data.splits import SearchSplit
from evosearch.models.weights import load_state
from evosearch.study.scores import Score
from evosearch.tasks.scoring import score
from evosearch.tasks.task import Task
from evosearch.training.parts import Part
from evosearch.training.trainer import EpochRecord, OnEpoch


@final
class BestEpoch(Part):
    """Scores a network epoch by epoch and remembers the weights of its best.

    A network that is cut has no best epoch yet: what was best had other shapes.
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
    ) -> None:
        """Takes what is trained, what it is scored on, for how many epochs and after how many."""
        self._model, self._search, self._epochs = model, search, epochs
        self._on_epoch, self._task, self._begun = on_epoch, task, begun
        self._began = time.perf_counter()
        self._loss = math.inf
        self._state: dict[str, Tensor] = {}
        self.epoch = begun
        self.history: list[EpochRecord] = []

    def record(self, train_loss: float | None) -> None:
        """Scores the network; `train_loss` is None before the first step."""
        result = score(self._model, self._search, task=self._task)
        epoch = self._begun + len(self.history)
        if result.loss < self._loss:
            self._loss, self.epoch = result.loss, epoch
            state = self._model.state_dict()
            self._state = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.history.append(
            EpochRecord(
                epoch=epoch,
                epochs=self._epochs,
                train_loss=train_loss,
                search=result,
                seconds=time.perf_counter() - self._began,
            )
        )
        if self._on_epoch is not None:
            self._on_epoch(self.history[-1])

    def state(self) -> dict[str, Any]:
        """Returns the epochs so far and the best weights, as tensors and plain values."""
        return {
            "loss": self._loss,
            "epoch": self.epoch,
            "weights": self._state,
            "history": [asdict(record) for record in self.history],
        }

    def after_cut(self) -> None:
        """Forgets what was best."""
        self._loss, self._state = math.inf, {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to what `state` gave."""
        self._loss, self.epoch, self._state = state["loss"], state["epoch"], state["weights"]
        self.history = [
            EpochRecord(**{**record, "search": Score(**record["search"])})
            for record in state["history"]
        ]
        if self.history:
            self._began -= self.history[-1].seconds

    def keep_best(self) -> None:
        """Gives the network the weights of its best epoch."""
        load_state(self._model, self._state)
        self._model.eval()
