"""The evaluator of masks: compact, compensate, recalibrate, score on the search split."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import cached_property
from typing import TypeVar, final

from torch import nn

from evosearch.criteria import criterion_class, score_channels
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.data.splits import CalibrationSplit, SearchSplit
from evosearch.engine.config import EvaluatorConfig
from evosearch.errors import EvaluationError
from evosearch.machine import device_of
from evosearch.memory import largest_fitting, memory_needed
from evosearch.refit.building import (
    LARGEST_BATCH_MAP,
    STATISTICS,
    Builder,
    ElasticWeights,
    divided,
    images_within,
)
from evosearch.refit.compensated_error import CompensatedErrors
from evosearch.refit.folding import fold_batchnorms
from evosearch.refit.gram import Consumer, collect_statistics, gram_blocks
from evosearch.seeding import Stream, generator
from evosearch.space.knowledge import ImportanceScores, Knowledge
from evosearch.space.mask import Mask
from evosearch.study.scores import ImageScores
from evosearch.study.trial import Evaluation
from evosearch.surgery.discovery import Discovery
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.resident import ResidentSplit, range_scores
from evosearch.tasks.scoring import batch_size_on
from evosearch.tasks.task import Task

T = TypeVar("T")

STATISTICS_KEPT = 2**28
"""Bytes of statistics of layer inputs that stay once knowledge is made of them, at most."""
WEIGHTS_KEPT = 2**25
"""Weights of the compact networks that are kept for the next rung of the same candidates: 128 MiB.
All of a genetic round of small networks, a few of ResNet-50's."""
JUDGING = 512
"""Search images that tell whether elastic weights make a candidate better, at most."""


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
        recover: Callable[[nn.Module], None] | None = None,
        elastic: nn.Module | None = None,
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
            recover: trains a compact network for a moment before it is scored, in place; always
                in the same way.
            elastic: weights whose changes candidates take over, where that makes them better.
        """
        self._task = task
        self._recover = recover
        self._model = model
        self._discovery = discovery
        self.images = len(search)
        shuffled = generator(seed, Stream.EVALUATION, "order").permutation(len(search))
        place = device_of(model)
        numerics = config.numerics(place)
        self._search = ResidentSplit(search.take(shuffled), place, numerics)
        self._batch_size = config.batch_size or batch_size_on(place)
        self._built: OrderedDict[Mask, nn.Module] = OrderedDict()
        self._weights_kept = 0
        most = images_within(LARGEST_BATCH_MAP, model, discovery.layers)
        self._labelled = [
            (batch.to(place), labels.to(place))
            for batch, labels in calibration.shuffled(seed).batches(
                min(config.calibration_batch, most)
            )
            if len(batch) > 1  # BatchNorm cannot take statistics of a single image
        ]
        self._batches = [batch for batch, _ in self._labelled]
        self._seed = seed
        weights = None
        if elastic is not None:
            weights = ElasticWeights(weights=elastic, loss=self._judged_loss)
        self.builder = Builder(
            model=model.eval(),
            discovery=discovery,
            batches=self._batches,
            images=config.build_images,
            build=config.build,
            numerics=numerics,
            seed=seed,
            rescale=config.rescale,
            elastic=weights,
        )

    def prepare(self, *, errors: bool) -> None:
        """See `Evaluator.prepare`."""
        if errors:
            _healthy(lambda: self._compensated_errors)
        else:
            _healthy(self.builder.prepare)

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        """See `Evaluator.image_scores`."""
        if mask not in self._built:
            network = self._built[mask] = _healthy(lambda: self._candidate(mask))
            self._weights_kept += _weights(network)
            while len(self._built) > 1 and self._weights_kept > WEIGHTS_KEPT:
                self._weights_kept -= _weights(self._built.popitem(last=False)[1])
        return self._scored(self._built[mask], start, stop)

    def _candidate(self, mask: Mask) -> nn.Module:
        """Returns the network that a mask is scored by; that of the full mask is the base."""
        network = self.builder.candidate(mask)
        if self._recover is not None and mask != self._discovery.space.full_mask():
            self._recover(network)
        fold_batchnorms(network, self._discovery.layers)
        return network

    def _judged_loss(self, network: nn.Module) -> float:
        """Returns the loss on the search images that judge builds; infinite where it has none.

        Calibration images would favour the network that is compensated on them.
        """
        try:
            return self._scores(network, 0, min(JUDGING, self.images)).loss
        except EvaluationError:
            return math.inf

    def compensated_error(self, mask: Mask) -> float:
        """See `Evaluator.compensated_error`."""
        return _healthy(lambda: self._compensated_errors(mask))

    @cached_property
    def _consumers(self) -> dict[str, Consumer]:
        groups, layers = self._discovery.space.groups, self._discovery.layers
        return self._in_batches(
            lambda size: collect_statistics(
                self._model, groups, layers, divided(self._batches, size), self._seed
            )
        )

    def _in_batches(self, work: Callable[[int], T]) -> T:
        """Returns what work on calibration batches of a size gives, the largest that fits."""
        first = self._batches[0]
        return largest_fitting(STATISTICS, first.device, len(first), work, least=2)

    @cached_property
    def _compensated_errors(self) -> CompensatedErrors:
        groups = self._discovery.space.groups
        return CompensatedErrors(self._model, groups, self._consumers.values())

    def evaluate(self, mask: Mask) -> Evaluation:
        """Returns what a mask is worth on the whole search split."""
        began = time.perf_counter()
        scores = self.image_scores(mask, 0, self.images)
        return Evaluation(score=scores.score, seconds=time.perf_counter() - began)

    def evaluate_plain(self, mask: Mask) -> Evaluation:
        """Returns what the network of a mask is worth that is recalibrated alone: a baseline."""
        began = time.perf_counter()
        scores = self._scored(_healthy(lambda: self.builder.plain(mask)), 0, self.images)
        return Evaluation(score=scores.score, seconds=time.perf_counter() - began)

    def _scored(self, network: nn.Module, start: int, stop: int) -> ImageScores:
        return _healthy(lambda: self._scores(network, start, stop))

    def _scores(self, network: nn.Module, start: int, stop: int) -> ImageScores:
        return range_scores(
            network,
            self._search,
            range(start, stop),
            batch_size=self._batch_size,
            task=self._task,
            numerics=self.builder.numerics,
        )

    def knowledge(self, criteria: Collection[str]) -> Knowledge:
        """Returns the Gram matrices and importance scores of the base network.

        Args:
            criteria: names of the importance criteria.

        Raises:
            InputError: there is no such criterion, or it cannot score this network.
        """
        groups, layers, task = self._discovery.space.groups, self._discovery.layers, self._task
        network = ScoredNetwork(
            model=self._model,
            groups=groups,
            layers=layers,
            losses=lambda output, labels: task.losses(task.outputs(output), labels),
            consumers=self._consumers,
        )

        def scored(size: int) -> dict[str, ImportanceScores]:
            rng = generator(self._seed, Stream.STATISTICS, "criteria")
            labelled = [
                (batch[start : start + size], labels[start : start + size])
                for batch, labels in self._labelled
                for start in range(0, len(batch), size)
            ]
            return score_channels(criteria, network, labelled, rng)

        scores = self._in_batches(scored)
        gram = gram_blocks(self._model, groups, self._consumers)
        if sum(own.covariance.nbytes for own in self._consumers.values()) > STATISTICS_KEPT:
            del self._consumers  # compensated errors, where they are wanted, measure them again
        return Knowledge(
            gram=gram,
            scores=scores,
            comparable={
                name: {group: criterion_class(name).normaliser(s) for group, s in found.items()}
                for name, found in scores.items()
            },
        )


def _weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _healthy(attempt: Callable[[], T]) -> T:
    """Returns what an attempt gives; what goes wrong in torch is the candidate's fault.

    Raises:
        EvaluationError: it failed.
        MemoryExhausted: memory did not suffice, which is nobody's fault.
    """
    try:
        with memory_needed("a candidate"):
            return attempt()
    except (RuntimeError, ValueError) as error:
        raise EvaluationError(f"{type(error).__name__}: {error}") from error
