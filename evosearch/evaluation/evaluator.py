"""What a mask is worth: compact, compensate, recalibrate, score on the search split."""

import time
from collections.abc import Callable
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from evosearch.errors import EvaluationError
from evosearch.evaluation.data import CalibrationSplit, SearchSplit
from evosearch.evaluation.recalibration import recalibrate
from evosearch.evaluation.scoring import device_of, score
from evosearch.evaluation.task import CLASSIFICATION, Task
from evosearch.knowledge import Knowledge, SensitivityCurve
from evosearch.mask import Bits, Mask
from evosearch.scores import Score
from evosearch.seeding import Stream, generator
from evosearch.surgery.compaction import compact, dropped_positions
from evosearch.surgery.compensation import Compensation
from evosearch.surgery.criteria import l1
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.gram import collect_statistics, gram_blocks
from evosearch.trial import Evaluation


class EvaluatorConfig(BaseModel):
    """How candidates are scored.

    Attributes:
        batch_size: images per forward pass when scoring.
        calibration_batch: images per forward pass when statistics are measured.
        compensation_images: calibration images that kept weights are refitted on, all in one
            forward pass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int = Field(default=128, ge=1)
    calibration_batch: int = Field(default=128, ge=2)
    compensation_images: int = Field(default=512, ge=2)


class Evaluator(Protocol):
    """Measures candidates; never changes the model that it was given."""

    def evaluate(self, mask: Mask) -> Evaluation:
        """Returns what a mask is worth; the same for the same mask, whenever it is asked.

        Raises:
            EvaluationError: the candidate has no finite score.
        """
        ...


@final
class MaskEvaluator:
    """Scores masks on the search split; its statistics come from the calibration split."""

    def __init__(
        self,
        *,
        model: nn.Module,
        discovery: Discovery,
        calibration: CalibrationSplit,
        search: SearchSplit,
        config: EvaluatorConfig,
        seed: int,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Records the outputs of the base network's layers.

        Args:
            model: the base network, trained; not changed.
            discovery: its proven groups and its layers.
            calibration: images for statistics.
            search: images that candidates are scored on.
            config: how candidates are scored.
            seed: the run's.
            task: what candidates are judged by.
        """
        self._task = task
        self._model = model
        self._discovery = discovery
        self._search = search
        self._config = config
        # Sources list images class by class; a batch of one class has other statistics than all.
        order = generator(seed, Stream.STATISTICS, "order").permutation(len(calibration))
        self._batches = [
            batch.to(device_of(model))
            for batch, _ in calibration.take(order).batches(config.calibration_batch)
            if len(batch) > 1  # BatchNorm cannot take statistics of a single image
        ]
        self._seed = seed
        images = torch.cat(self._batches)[: config.compensation_images]
        self._compensation = Compensation(model.eval(), discovery.layers, images, seed)

    def network(self, mask: Mask) -> nn.Module:
        """Returns the compact network of a mask, compensated and recalibrated.

        The full mask gives a copy of the base network, exactly.
        """
        groups = self._discovery.space.groups
        network = compact(self._model, groups, mask).eval()
        drops = dropped_positions(groups, mask)
        if drops:
            self._compensation.apply(network, drops)
        return network

    def plain_network(self, mask: Mask) -> nn.Module:
        """Returns the compact network of a mask, recalibrated but not compensated: a baseline."""
        network = compact(self._model, self._discovery.space.groups, mask).eval()
        recalibrate(network, self._batches)
        return network

    def evaluate(self, mask: Mask) -> Evaluation:
        """See `Evaluator.evaluate`."""
        return self._measure(lambda: self.network(mask))

    def evaluate_plain(self, mask: Mask) -> Evaluation:
        """Returns what `plain_network` is worth."""
        return self._measure(lambda: self.plain_network(mask))

    def _measure(self, build: Callable[[], nn.Module]) -> Evaluation:
        start = time.perf_counter()
        try:
            scored = self._score(build())
        except (RuntimeError, ValueError) as error:
            raise EvaluationError(f"{type(error).__name__}: {error}") from error
        return Evaluation(
            loss=scored.loss,
            loss_se=scored.loss_se,
            accuracy=scored.accuracy,
            accuracy_se=scored.accuracy_se,
            images=scored.images,
            seconds=time.perf_counter() - start,
        )

    def _score(self, network: nn.Module) -> Score:
        return score(network, self._search, task=self._task, batch_size=self._config.batch_size)

    def knowledge(self) -> Knowledge:
        """Returns the Gram matrices and importance scores of the base network."""
        groups, layers = self._discovery.space.groups, self._discovery.layers
        consumers = collect_statistics(self._model, groups, layers, self._batches, self._seed)
        return Knowledge(
            gram=gram_blocks(self._model, groups, consumers),
            scores={"l1": l1(self._model, groups, layers)},
        )

    def sensitivity(
        self,
        subset: Callable[[str, int], Bits],
        keep_ratios: tuple[float, ...],
    ) -> dict[str, SensitivityCurve]:
        """Measures how the search loss rises when one group alone is cut.

        Not the calibration loss: the weights that stay are refitted on those images.

        Args:
            subset: gives the channels to keep of a group at a width.
            keep_ratios: shares of each group's channels to probe.
        """
        space = self._discovery.space
        full = space.full_mask()
        base = self._score(self._model).loss
        curves = {}
        for group in space.groups:
            legal = np.array(group.legal_widths())
            wanted = {int(legal[np.abs(legal - r * group.size).argmin()]) for r in keep_ratios}
            widths = np.array([*sorted(wanted - {group.size}), group.size], dtype=np.int64)
            losses = [
                self._score(
                    self.network(Mask({**full, group.name: subset(group.name, int(width))}))
                ).loss
                for width in widths[:-1]
            ]
            increases: NDArray[np.float64] = np.array([*losses, base]) - base
            curves[group.name] = SensitivityCurve(widths=widths, loss_increase=increases)
        return curves
