"""The strategies `random`, `uniform`, `global`, `triangular` and `relative`, which learn nothing.

What a search is compared with at an equal number of trials. They learn nothing from trials; the
plans themselves are in `fixed_plans`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from itertools import count
from typing import ClassVar, final

from pydantic import BaseModel, ConfigDict, Field

from evosearch.errors import unknown_name
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget
from evosearch.space.knowledge import ImportanceScores, Knowledge
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import Problem, RungPlan
from evosearch.strategies.fixed_plans import (
    global_mask,
    random_mask,
    relative_mask,
    triangular_mask,
    uniform_mask,
)
from evosearch.strategies.untried import DRAWN, Untried
from evosearch.study.trial import Proposal, Trial

REPEATS = 256
"""So many budgets in a row whose plans were tried leave no others worth looking for."""


class BaselineConfig(BaseModel):
    """Settings of the strategies that do not search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round_size: int = Field(default=4, ge=1)
    """Trials per round."""
    criterion: str = "l1"
    """Importance that decides which channels stay; `random` has no use for it."""


class _Baseline(ABC):
    """Proposes plans that depend on nothing but the number of the trial.

    A genome is `{"operator": name, "budget": position}`.
    """

    name: ClassVar[str]
    Config: ClassVar[type[BaseModel]] = BaselineConfig
    ladder: Sequence[RungPlan] = ()

    def __init__(self, problem: Problem[BaselineConfig]) -> None:
        """Prepares the first round; see `Strategy`.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
            InputError: the knowledge holds no scores of the criterion; names the nearest.
        """
        problem.space.require_reachable(problem.budget)
        self._space, self._budget = problem.space, problem.budget
        self._config, self._seed = problem.config, problem.seed
        self._earlier, self._told = len(problem.earlier), 0
        self._tried: set[Mask] = set()
        self._prepare(problem.knowledge)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Counts the trials of one whole round; see `Strategy`."""
        self._told += len(trials)
        self._tried |= {trial.mask for trial in trials}

    def _proposal(self, mask: Mask, position: float) -> Proposal:
        return Proposal(mask=mask, genome={"operator": self.name, "budget": position})

    @abstractmethod
    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`."""

    @abstractmethod
    def _prepare(self, knowledge: Knowledge) -> None:
        """Takes what the plans need of the knowledge."""


@final
class Random(_Baseline):
    """Random channels at random widths, at random budgets of a range."""

    name: ClassVar[str] = "random"

    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`."""
        tried = set(self._tried)
        proposals: list[Proposal] = []
        for number in range(self._told, self._told + self._config.round_size):
            proposal = self._drawn(self._earlier + number, tried)
            if proposal is None:
                break
            tried.add(proposal.mask)
            proposals.append(proposal)
        return proposals

    def _prepare(self, knowledge: Knowledge) -> None:  # noqa: ARG002
        """Random plans need no knowledge."""
        self._untried = Untried(self._space, self._budget)

    def _drawn(self, key: int, tried: Set[Mask]) -> Proposal | None:
        """Returns a mask that was not tried, but in a large space; None where all were."""
        position = 1.0
        if self._budget.is_range:
            position = float(generator(self._seed, Stream.ASK, key, "budget").random())
        rng = generator(self._seed, Stream.ASK, key)
        budget = self._budget.at(position)
        for _ in range(DRAWN):
            mask = random_mask(self._space, budget, rng)
            if mask not in tried:
                return self._proposal(mask, position)
        listed = self._untried.listed_masks
        if listed is None:
            return self._proposal(mask, position)
        left = [mask for mask in listed if mask not in tried]
        if not left:
            return None
        mask = left[rng.integers(len(left))]
        fits = self._space.fits(self._space.widths(mask)[None], budget)[0]
        return self._proposal(mask, position if fits else 1.0)


class _FixedPlan(_Baseline):
    """One plan per budget, for budgets that fill a range ever more densely.

    Positions are 1, 0 and then van der Corput's sequence: 1/2, 1/4, 3/4, 1/8, ... A single budget
    is served as the range from half of it (or the smallest reachable cost) up to it, so position 1
    is the budget itself. A position whose plan was tried is passed over. Nothing is drawn: the
    seed does not matter.
    """

    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`."""
        tried, repeats = set(self._tried), 0
        proposals: list[Proposal] = []
        for index in count():
            if len(proposals) == self._config.round_size or repeats == REPEATS:
                break
            position = _position(index)
            if index == len(self._plans):
                budget = self._served.at(position)
                self._plans.append(self._plan(self._space, budget, self._scores))
            mask, repeats = self._plans[index], repeats + 1
            if mask not in tried:
                tried.add(mask)
                proposals.append(self._proposal(mask, position))
                repeats = 0
        return proposals

    @staticmethod
    @abstractmethod
    def _plan(space: SearchSpace, budget: Budget, scores: ImportanceScores, /) -> Mask:
        """Returns the plan of a single budget."""

    @staticmethod
    def _read(knowledge: Knowledge) -> Mapping[str, ImportanceScores]:
        return knowledge.scores

    def _prepare(self, knowledge: Knowledge) -> None:
        if self._config.criterion not in knowledge.scores:
            raise unknown_name("criterion", self._config.criterion, knowledge.scores)
        self._scores = self._read(knowledge)[self._config.criterion]
        self._served = self._budget if self._budget.is_range else _up_to(self._budget, self._space)
        self._plans: list[Mask] = []


@final
class Uniform(_FixedPlan):
    """The same keep ratio in all groups; see `fixed_plans.uniform_mask`."""

    name: ClassVar[str] = "uniform"
    _plan = staticmethod(uniform_mask)


@final
class Global(_FixedPlan):
    """The least important channels of all groups go; see `fixed_plans.global_mask`."""

    name: ClassVar[str] = "global"
    _plan = staticmethod(global_mask)

    @staticmethod
    def _read(knowledge: Knowledge) -> Mapping[str, ImportanceScores]:
        return knowledge.comparable


@final
class Triangular(_FixedPlan):
    """Rates that rise from first to last group; see `fixed_plans.triangular_mask`."""

    name: ClassVar[str] = "triangular"
    _plan = staticmethod(triangular_mask)


@final
class Relative(_FixedPlan):
    """A share of each group's largest score as threshold; see `fixed_plans.relative_mask`."""

    name: ClassVar[str] = "relative"
    _plan = staticmethod(relative_mask)


def _position(number: int) -> float:
    """Returns a position in a budget by number: both ends, then van der Corput's sequence."""
    if number < 2:
        return 1.0 - number
    digits = f"{number - 1:b}"
    return float(int(digits[::-1], 2) / 2 ** len(digits))


def _up_to(budget: Budget, space: SearchSpace) -> Budget:
    """Returns the range from half of a budget to it, as far as it can be reached."""
    ends = {}
    for name, bound in budget.bounds.items():
        least = RESOURCES[name].of(space.smallest_cost)
        ends[name] = [max(least, (bound.high + 1) // 2), bound.high]
    return Budget.from_json(ends)
