"""The contract of an importance criterion, and the two kinds that read weights alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from evosearch.calling import Inputs
from evosearch.criteria.scored_network import Array, ScoredNetwork
from evosearch.data.labels import Labels
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import ChannelGroup

Batches = Sequence[tuple[Inputs, Labels]]
"""Images `(images, ...)` and their labels, on the model's device."""


class Needs(Enum):
    """What a criterion has to be given; the value is what a person reads."""

    NOTHING = "nothing"
    IMAGES = "images"
    LABELS = "images and labels"
    GRADIENTS = "gradients"
    CURVATURE = "Hessian products"
    TRAINING = "a training under a budget"


class Normaliser(Enum):
    """How scores become comparable between groups, for one threshold over the whole network.

    `NONE` is for scores that are comparable as they are, by the criterion's own formula.
    """

    NONE = "none"
    MEAN = "divided by the group's mean"
    MAX = "divided by the group's maximum"

    def __call__(self, scores: Array) -> Array:
        """Returns one group's scores `(channels,)` on the common scale."""
        if self is Normaliser.NONE:
            return scores
        scale = np.abs(scores).mean() if self is Normaliser.MEAN else np.abs(scores).max()
        return scores / scale if scale > 0 else scores


Evidence = TypeVar("Evidence")


class Criterion(ABC, Generic[Evidence]):
    """Scores the channels of every group; called with a network, batches and a generator.

    Scoring has two steps, so that criteria asked for together share one pass over the data:
    `gather` makes that pass for all criteria of its kind, `score` turns what it found into
    scores. The first line of a criterion's docstring says what it scores.

    Attributes:
        needs: what it has to be given.
        source: the paper.
        coupled: how the members of a coupled group combine.
        normaliser: how scores become comparable between groups.
    """

    needs: ClassVar[Needs]
    source: ClassVar[str]
    coupled: ClassVar[str]
    normaliser: ClassVar[Normaliser]

    @staticmethod
    @abstractmethod
    def gather(
        criteria: Sequence[Any], network: ScoredNetwork, batches: Batches, rng: np.random.Generator
    ) -> Sequence[Evidence]:
        """Returns what each of several criteria of this kind scores from, by one pass.

        Args:
            criteria: all of one kind: they share this function.
            network: what is scored.
            batches: the data.
            rng: of what is drawn on the way.
        """

    @abstractmethod
    def score(
        self, network: ScoredNetwork, evidence: Evidence, rng: np.random.Generator
    ) -> ImportanceScores:
        """Returns the scores of every group.

        Args:
            network: what is scored.
            evidence: what `gather` found.
            rng: of the criterion's own draws.
        """

    def __call__(
        self, network: ScoredNetwork, batches: Batches, rng: np.random.Generator
    ) -> ImportanceScores:
        """Returns the scores of every group, by a pass for this criterion alone."""
        (evidence,) = self.gather([self], network, batches, rng)
        return self.score(network, evidence, rng)


class DataFree(Criterion[None]):
    """Kind of criterion that reads weights only."""

    needs = Needs.NOTHING

    @staticmethod
    def gather(
        criteria: Sequence[Any],
        network: ScoredNetwork,
        batches: Batches,
        rng: np.random.Generator,
    ) -> Sequence[None]:
        """There is nothing to gather."""
        return [None] * len(criteria)


class DataFreeByGroup(DataFree):
    """Kind of criterion that reads weights only, one group at a time."""

    def score(
        self, network: ScoredNetwork, evidence: None, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        return {group.name: self.score_group(network, group) for group in network.groups}

    @abstractmethod
    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """Returns the scores of one group, `(channels,)`."""
