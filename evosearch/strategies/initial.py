"""The first plans of a genetic search: known rules, at costs all over the range."""

from collections.abc import Callable
from typing import Any, final

import numpy as np

from evosearch.errors import unknown_name
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Bound, Budget
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import Problem
from evosearch.strategies.fixed_plans import global_mask, random_mask, uniform_widths
from evosearch.strategies.learned import LossModel, Weights
from evosearch.strategies.sensitivity import SensitivityRates

GOLDEN = 0.618034
"""Multiples of the golden ratio, modulo 1, spread any number of points evenly."""


@final
class InitialPlans:
    """Any number of plans; rules take turns, and each plan has its own point of the range."""

    def __init__(
        self, problem: Problem[Any], served: Budget, model: LossModel, criterion: str
    ) -> None:
        """Prepares the rules.

        Args:
            problem: its space, knowledge and seed count.
            served: the range of budgets that plans are made for.
            model: of the loss, which allocates before any trial.
            criterion: orders channels for the plans of one threshold.

        Raises:
            InputError: the knowledge lacks a group's sensitivity, or the criterion.
        """
        space, knowledge, seed = problem.space, problem.probed(), problem.seed
        if criterion not in knowledge.comparable:
            raise unknown_name("criterion", criterion, knowledge.comparable)
        sensitivity = SensitivityRates(space, knowledge.sensitivity)
        equal = Weights(np.ones(len(space.groups)))
        measured = np.zeros(len(space.groups))
        two_step, scores = model.two_step, knowledge.comparable[criterion]
        self._served = served
        # Allocated; uniform; of one tolerance, as `layerwise` begins; one threshold; random.
        self._rules: tuple[Callable[[Budget, int], Mask], ...] = (
            lambda budget, _: model.plan(equal, budget),
            lambda budget, _: two_step.mask(uniform_widths(space, budget)),
            lambda budget, _: two_step.mask(sensitivity.widths(measured, budget)),
            lambda budget, _: global_mask(space, budget, scores),
            lambda budget, n: random_mask(space, budget, generator(seed, Stream.GENETIC, n)),
        )
        self._plans: dict[int, Mask] = {}

    def plan(self, number: int) -> Mask:
        """Returns a plan by number, from 0: both ends of the range first."""
        if number not in self._plans:
            position = 1.0 - number if number < 2 else number * GOLDEN % 1
            rule = self._rules[number % len(self._rules)]
            self._plans[number] = rule(self._served.at(position), number)
        return self._plans[number]


def served_range(space: SearchSpace, budget: Budget) -> Budget:
    """Returns the range of budgets that the front of a run covers.

    That of the budget; where it is a single one, from half of it, or from the smallest reachable
    cost where that is more.
    """
    if budget.is_range:
        return budget
    ranges: dict[str, Bound] = {}
    for name, bound in budget.bounds.items():
        low = max(bound.high // 2, RESOURCES[name].of(space.smallest_cost))
        ranges[name] = Bound(low=low, high=bound.high)
    return budget.but(**ranges)
