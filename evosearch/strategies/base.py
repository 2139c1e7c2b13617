"""The protocol of a strategy, and the problem that one is built from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any, ClassVar, Generic, Protocol, TypeVar, final

import numpy as np
from pydantic import BaseModel

from evosearch.space.budget import Budget
from evosearch.space.knowledge import Knowledge
from evosearch.space.space import SearchSpace, Widths
from evosearch.study.trial import Proposal, Rung, Trial

Settings = TypeVar("Settings", bound=BaseModel, covariant=True)


@final
@dataclass(frozen=True, kw_only=True)
class Problem(Generic[Settings]):
    """All that a strategy knows before its first trial.

    Attributes:
        space: what is searched.
        budget: what every proposal must meet.
        knowledge: measurements on the base network; sensitivities come by `probed`.
        config: the strategy's own settings, an instance of its `Config`.
        seed: the run's.
        earlier: trials of the same study that were proposed for another budget. Their
            evaluations hold, and their number advances the next ask like any others'.
        probe: adds the sensitivities to the knowledge; see `probed`.
    """

    space: SearchSpace
    budget: Budget
    knowledge: Knowledge
    config: Settings
    seed: int
    earlier: Sequence[Trial] = ()
    probe: Callable[[Knowledge], Knowledge] = lambda knowledge: knowledge

    def probed(self) -> Knowledge:
        """Returns the knowledge with sensitivities, which are measured when first asked for.

        They follow from the base network alone, so it is for the strategy to say when: one that
        asks late has its first trials early.

        Raises:
            EvosearchError: a probe failed.
        """
        return self.probe(self.knowledge)


@dataclass(frozen=True, kw_only=True)
class RungPlan:
    """The climb of a round over one rung of the fitness ladder.

    Attributes:
        rung: COMPENSATED or PARTIAL.
        survivors: at most so many candidates of the round climb on.
        share: of the search images, for PARTIAL.
    """

    rung: Rung
    survivors: int
    share: float = 1.0

    def images(self, whole: int) -> int:
        """Returns how many of the search images PARTIAL scores on."""
        return max(2, round(self.share * whole))


class Strategy(Protocol):
    """Proposes masks and learns from what came of them.

    It holds no state that its problem and the trials told do not determine, so a resumed run
    rebuilds it by telling it the recorded rounds again. Every proposal is legal and within the
    upper end of the budget.
    """

    name: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    """The pydantic model of its settings."""
    ladder: Sequence[RungPlan]
    """The rungs between the strategy's own and the last, which its rounds climb; may be none."""

    def __init__(self, problem: Problem[Any]) -> None:
        """Prepares the first round.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
        """
        ...

    def ask(self) -> list[Proposal]:
        """Returns the proposals of the next round, always the same number.

        There are fewer only where the strategy has nothing else that is new, and none where it
        has nothing new at all: that ends the search. Pure: asking twice without a tell in between
        gives the same proposals.
        """
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns from one whole round: the trials of the last `ask`, in its order.

        Failed and pruned trials come too, and advance the next ask like all others.
        """
        ...


def budget_positions(budget: Budget, count: int) -> tuple[float, ...]:
    """Returns the positions in a budget that trials take in turn, ascending.

    `count` of them from 0 to 1 where the budget is a range, else only 1.
    """
    return tuple(np.linspace(0, 1, count).tolist()) if budget.is_range else (1.0,)


def met_position(
    space: SearchSpace, budget: Budget, positions: Sequence[float], widths: Widths, wanted: float
) -> float:
    """Returns the position of a budget that widths `(groups,)` are a plan for.

    Args:
        space: what is searched.
        budget: the upper end of which the widths meet.
        positions: those that trials take, ascending.
        widths: of the plan.
        wanted: the position that is best.
    """
    met = [x for x in positions if space.fits(widths[None], budget.at(x))[0]]
    return wanted if wanted in met else met[0]


def relative_losses(
    trials: Sequence[Trial], is_reference: Callable[[Trial], bool]
) -> dict[int, float]:
    """Returns how each trial's loss compares with a reference plan of the same budget.

    Losses at a small and at a large budget are not comparable; `log(loss / reference loss)` is.
    (In differences small budgets, where losses are large, would decide what is good.)

    Args:
        trials: told so far; the genome of each holds its position in the budget as "budget".
        is_reference: whether a trial is its budget's reference plan. Where that failed, the
            median loss of the trials of the same budget stands in.

    Returns:
        Trial number -> log ratio, for all trials that did not fail.
    """
    losses = {
        t.number: max(t.evaluation.score.loss, 1e-12) for t in trials if t.evaluation is not None
    }
    relative = {}
    for position in {trial.genome["budget"] for trial in trials}:
        here = [t for t in trials if t.genome["budget"] == position and t.number in losses]
        found = [losses[t.number] for t in here if is_reference(t)]
        reference = found[0] if found else median([losses[t.number] for t in here] or [1.0])
        relative.update({t.number: log(losses[t.number] / reference) for t in here})
    return dict(sorted(relative.items()))
