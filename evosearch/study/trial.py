"""One evaluated candidate: the proposal, the rungs that it climbed, and its evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import amounts
from evosearch.study.scores import Score

Genome = Mapping[str, Any]
"""A strategy's own description of a proposal, as JSON: layer weights, parents, operator."""


class Rung(IntEnum):
    """How far up the fitness ladder a candidate climbed; only FULL scores enter the front."""

    COST = 0
    TWO_STEP = 1
    COMPENSATED = 2
    PARTIAL = 3
    FULL = 4


class TrialState(Enum):
    """How a trial ended: at the top of the ladder, on a lower rung, or not at all."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one rung said of a candidate.

    Attributes:
        rung: the rung.
        score: lower is better: the strategy's own two-step score, the compensated error, or the
            loss in nats.
        images: number of search images that it was scored on.
        seconds: wall time.
    """

    rung: Rung
    score: float
    images: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a candidate was measured to be worth on the search split.

    Attributes:
        score: loss and accuracy, with standard errors over images.
        seconds: wall time of the evaluation.
        rung: the rung reached.
    """

    score: Score
    seconds: float
    rung: Rung = Rung.FULL


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A mask to evaluate.

    Attributes:
        mask: the channels to keep.
        genome: the strategy's own description of it.
        two_step: the strategy's own score by the two-step approximation, lower is better; None
            where it has none.
    """

    mask: Mask
    genome: Genome = field(default_factory=dict)
    two_step: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One proposal and its outcome.

    Attributes:
        number: position in the study, from 0.
        generation: the round that proposed it, from 0.
        mask: the channels kept.
        genome: as proposed.
        cost: exact cost of the network that the mask leaves.
        state: COMPLETE with an evaluation on all images, PRUNED, or FAIL with an error.
        evaluation: what was measured; of a PRUNED trial on a part of the images, or None where
            it did not come to held-out images.
        steps: what every rung said that it climbed.
        error: one line on why the candidate failed.
        duplicate_of: number of the earlier trial with the same mask, whose outcome this repeats.
    """

    number: int
    generation: int
    mask: Mask
    genome: Genome
    cost: Cost
    state: TrialState
    evaluation: Evaluation | None = None
    steps: tuple[Step, ...] = ()
    error: str | None = None
    duplicate_of: int | None = None

    def __repr__(self) -> str:
        parts = [amounts(self.cost)]
        if self.state is TrialState.PRUNED:
            parts.append("stopped" + (f" at {self.steps[-1].rung.name}" if self.steps else ""))
        if self.evaluation is not None:
            parts.append(str(self.evaluation.score))
        if self.error is not None:
            parts.append(f"failed: {self.error}")
        if self.duplicate_of is not None:
            parts.append(f"repeats trial {self.duplicate_of}")
        return f"Trial({self.number}: {', '.join(parts)})"

    @property
    def is_complete(self) -> bool:
        """Whether the trial climbed to the top of the ladder."""
        return self.state is TrialState.COMPLETE

    @property
    def loss(self) -> float:
        """The mean loss that the trial was scored at, on as many images as it came to.

        Raises:
            ValueError: it was not scored.
        """
        if self.evaluation is None:
            raise ValueError(f"trial {self.number} failed: it has no loss")
        return self.evaluation.score.loss

    def violation(self, budget: Budget) -> float:
        """Returns by how much the trial exceeds a budget; 0.0 when it is met."""
        accuracy = None if self.evaluation is None else self.evaluation.score.accuracy
        return budget.violation(self.cost, accuracy)
