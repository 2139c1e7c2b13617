"""The strategy `stepwise`: groups are cut one after the other, as far as a step's loss allows.

After the structural search of CaP (Xie et al. 2021, arXiv 2108.13728, the authors' code): from
the first group to the last, the width of each is found by bisection, with the cuts before it in
force; the smallest that keeps within the step's limit stays, and limits rise by equal steps from
what the network scored before to what it may score at the end. This program's form: the search
begins from the uniform plan that fills the budget (at a budget of 100 %, the base network), so
that every plan is within it; limits are on the loss, theirs on accuracy; and the end of one walk
through the groups is the start of the next, which may lose twice as much.
"""

from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from math import inf
from typing import Any, ClassVar, final

from pydantic import BaseModel, ConfigDict, Field

from evosearch.space.mask import Mask
from evosearch.space.space import Widths
from evosearch.strategies.base import Problem, RungPlan, budget_positions
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.strategies.two_step import TwoStep
from evosearch.study.trial import Proposal, Trial

WALKS = 8
"""Walks through the groups from the plan that fills a budget, at most: the last may make the loss
of its start grow by over a hundred times `rise`."""


class StepwiseConfig(BaseModel):
    """Settings of `stepwise`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round_size: int = Field(default=4, ge=1)
    """Trials per round: the next bisection steps, as if those before them failed."""
    budgets: int = Field(default=5, ge=2)
    """Budgets that a range is served at, both ends included, the largest first."""
    rise: float = Field(default=0.2, gt=0)
    """By how much of itself the loss may rise over the first walk through the groups."""
    probes: int = Field(default=4, ge=1)
    """Bisection steps for one width, at most."""


@final
class Stepwise:
    """Bisection of one width after the other, under limits that rise step by step.

    It goes by the losses of plans alone, whoever proposed them; a plan that failed or was given
    up early counts as over every limit. Where all walks have ended, so has the search.
    """

    name: ClassVar[str] = "stepwise"
    Config: ClassVar[type[BaseModel]] = StepwiseConfig
    ladder: Sequence[RungPlan] = ()

    def __init__(self, problem: Problem[StepwiseConfig]) -> None:
        """Finds the plans to begin from; see `Strategy`.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
            InputError: the knowledge lacks a group's Gram matrix.
        """
        space, budget = problem.space, problem.budget
        space.require_reachable(budget)
        self._space, self._config = space, problem.config
        self._two_step = TwoStep(space, problem.knowledge.gram)
        self._masks: dict[bytes, Mask] = {}
        positions = reversed(budget_positions(budget, problem.config.budgets))
        self._starts = {p: uniform_widths(space, budget.at(p)) for p in positions}
        self._losses: dict[Mask, float] = {}
        self.tell(problem.earlier)

    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`."""
        return list(islice(self._walks(dict(self._losses)), self._config.round_size))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns from one whole round; see `Strategy`."""
        for trial in trials:
            self._losses.setdefault(trial.mask, trial.loss if trial.is_complete else inf)

    def _walks(self, losses: dict[Mask, float]) -> Iterator[Proposal]:
        """Yields the plans that the walks need the loss of, in order.

        Args:
            losses: what is known; a plan that is not is yielded, and counts as failed from there
                on, so that what may be needed next is yielded, too.
        """
        ends = dict(self._starts)
        for walk in range(WALKS):
            for position, start in ends.items():
                ends[position] = yield from self._walked(start, position, walk, losses)

    def _walked(
        self, start: Widths, position: float, walk: int, losses: dict[Mask, float]
    ) -> Generator[Proposal, None, Widths]:
        """Yields likewise for one walk, and returns the plan at its end."""
        widths = start.copy()
        operator = "uniform" if walk == 0 else "start"
        first = yield from self._loss(start, _genome(operator, position), losses)
        for index, group in enumerate(self._space.groups):
            share = (index + 1) / len(self._space.groups)
            limit = first * (1 + self._config.rise * 2**walk * share)
            legal = group.legal_widths()
            over, within = -1, legal.index(widths[index])
            for _ in range(self._config.probes):
                if within - over <= 1:
                    break
                middle = (over + within) // 2
                widths[index] = legal[middle]
                genome = _genome("bisection", position) | {"group": group.name, "walk": walk}
                loss = yield from self._loss(widths, genome, losses)
                if loss <= limit and loss < inf:
                    within = middle
                else:
                    over = middle
            widths[index] = legal[within]
        return widths

    def _loss(
        self, widths: Widths, genome: dict[str, Any], losses: dict[Mask, float]
    ) -> Generator[Proposal, None, float]:
        """Returns the loss of a plan, after it was yielded where it is not known."""
        mask = self._mask(widths)
        if mask not in losses:
            losses[mask] = inf
            yield Proposal(mask=mask, genome=genome)
        return losses[mask]

    def _mask(self, widths: Widths) -> Mask:
        key = widths.tobytes()
        if key not in self._masks:
            self._masks[key] = self._two_step.mask(widths)
        return self._masks[key]


def _genome(operator: str, position: float) -> dict[str, Any]:
    return {"operator": operator, "budget": position}
