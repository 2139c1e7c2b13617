"""The strategy `layerwise`: rates from measured sensitivity, channels from a genetic algorithm.

After Hu et al. 2018 (arXiv 1805.11394): groups are pruned one by one according to their
sensitivity, each by its genetic algorithm (`genetic_layer`). The paper sets the rates by hand;
here one tolerance for all groups sets them, and an elitist evolution improves on it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from evosearch.errors import InputError
from evosearch.seeding import Stream, generator
from evosearch.space.knowledge import Array
from evosearch.space.mask import Bits, Mask
from evosearch.space.space import Widths
from evosearch.strategies.base import (
    Problem,
    RungPlan,
    budget_positions,
    met_position,
    relative_losses,
)
from evosearch.strategies.genetic_layer import GeneticConfig, evolve
from evosearch.strategies.sensitivity import SensitivityRates
from evosearch.strategies.untried import Untried
from evosearch.study.trial import Proposal, Trial

ATTEMPTS = 20
"""Mutations of the rates that are tried for a plan not proposed before."""


class LayerwiseConfig(BaseModel):
    """Settings of `layerwise`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round_size: int = Field(default=4, ge=1)
    """Trials per round."""
    budgets: int = Field(default=5, ge=2)
    """Budgets that a range is served at, both ends included."""
    mutation_rate: float = Field(default=0.3, gt=0, le=1)
    """Share of groups whose log factor a mutation of the rates changes."""
    mutation_scale: float = Field(default=0.5, gt=0)
    """Standard deviation of that change."""
    genetic: GeneticConfig = GeneticConfig()
    """The genetic algorithm of one group."""


@final
class Layerwise:
    """Rates by sensitivity under the budget; channels by one genetic algorithm per group.

    The first plan of each budget is the measured one. Every later one changes the sensitivities
    of some groups by random factors, starting from the best genome so far.
    """

    name: ClassVar[str] = "layerwise"
    Config: ClassVar[type[BaseModel]] = LayerwiseConfig
    ladder: Sequence[RungPlan] = ()

    def __init__(self, problem: Problem[LayerwiseConfig]) -> None:
        """Reads the sensitivities; see `Strategy`.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
            InputError: the knowledge lacks a group's sensitivity or Gram matrix.
        """
        space = problem.space
        space.require_reachable(problem.budget)
        knowledge = problem.probed()
        for group in space.groups:
            if (group.name, group.name) not in knowledge.gram:
                raise InputError(f"the knowledge holds no Gram matrix of group {group.name!r}")
        self._space, self._budget, self._gram = space, problem.budget, knowledge.gram
        self._config, self._seed = problem.config, problem.seed
        self._positions = budget_positions(problem.budget, problem.config.budgets)
        self._untried = Untried(space, problem.budget)
        self._rates = SensitivityRates(space, knowledge.sensitivity)
        self._evolved: dict[tuple[str, int], Bits] = {}
        self._earlier = tuple(problem.earlier)
        self._told: list[Trial] = []

    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`."""
        parent = self._best()
        parent_number = None if parent is None else parent.number
        known = (*self._earlier, *self._told)
        tried = {self._space.widths(trial.mask).tobytes() for trial in known}
        proposals = []
        for number in range(len(self._told), len(self._told) + self._config.round_size):
            position = self._positions[number % len(self._positions)]
            budget = self._budget.at(position)
            if number < len(self._positions):
                genome: dict[str, Any] = {"operator": "measured", "parent": None}
                factors = np.zeros(len(self._space.groups))
                widths = self._rates.widths(factors, budget)
            else:
                genome = {"operator": "mutation", "parent": parent_number}
                rng = generator(self._seed, Stream.ASK, len(self._earlier) + number)
                for _ in range(ATTEMPTS):
                    factors = self._mutated(parent, rng)
                    widths = self._rates.widths(factors, budget)
                    if widths.tobytes() not in tried:
                        break
                else:
                    genome["operator"] = "untried"
                    plans = self._untried.plans(tried, budget, rng)
                    if len(plans):
                        widths = rng.choice(plans)
                    elif self._untried.listed_plans is not None:
                        break
                    position = met_position(
                        self._space, self._budget, self._positions, widths, position
                    )
            tried.add(widths.tobytes())
            genome |= {"budget": position, "factors": self._named(factors)}
            proposals.append(Proposal(mask=self._mask(widths), genome=genome))
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns from one whole round; see `Strategy`."""
        self._told.extend(trials)

    def _best(self) -> Trial | None:
        """Returns the trial of least loss relative to the measured plan of its budget."""
        relative = relative_losses(self._told, lambda t: t.genome["operator"] == "measured")
        complete = [trial for trial in self._told if trial.number in relative]
        return min(complete, key=lambda t: relative[t.number], default=None)

    def _mutated(self, parent: Trial | None, rng: np.random.Generator) -> Array:
        """Returns the parent's log factors, some of them changed, `(groups,)`."""
        groups = len(self._space.groups)
        changed = rng.random(groups) < self._config.mutation_rate
        changed[rng.integers(groups)] = True
        steps = changed * rng.normal(scale=self._config.mutation_scale, size=groups)
        if parent is None:
            return steps
        return np.array([parent.genome["factors"][g.name] for g in self._space.groups]) + steps

    def _named(self, factors: Array) -> dict[str, float]:
        return dict(zip(self._space.sizes, factors.tolist(), strict=True))

    def _mask(self, widths: Widths) -> Mask:
        """Returns the mask that the groups' genetic algorithms find, most sensitive first."""
        bits = {}
        for index in self._rates.order:
            group = self._space.groups[index].name
            bits[group] = self._channels(group, int(widths[index]))
        return Mask({group: bits[group] for group in self._space.sizes})

    def _channels(self, group: str, width: int) -> Bits:
        """Returns the channels to keep, `(channels,)`: a function of seed, group and width."""
        if (group, width) not in self._evolved:
            gram = self._gram[group, group]
            if width == len(gram):
                return np.ones(width, dtype=np.bool_)
            rng = generator(self._seed, Stream.GENETIC, group, width)
            self._evolved[group, width] = evolve(gram, width, self._config.genetic, rng).keep
        return self._evolved[group, width]
