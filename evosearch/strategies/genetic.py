"""The strategy `genetic`: NSGA-II over whole masks finds the front of loss against cost.

One population serves all budgets of the range (of a single budget: from half of it up to it). A
generation is one round: parents are the best evaluated masks by NSGA-II (Deb et al. 2002), so
selection is elitist over all that was ever evaluated; their children climb the fitness ladder.
Its first rungs are here: exact cost and legality, then a two-step score, weighted by what the
trials say (`learned`). What survives is proposed, and climbs on to held-out loss on growing parts
of the search split, as in EvoPress (arXiv 2410.14649); only full evaluations become parents.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.knowledge import Array
from evosearch.space.resources import RESOURCES
from evosearch.space.space import Widths
from evosearch.strategies.base import Problem, RungPlan
from evosearch.strategies.fixed_plans import random_mask
from evosearch.strategies.initial import InitialPlans, served_range
from evosearch.strategies.learned import LossModel, Weights
from evosearch.strategies.population import Population, Rows
from evosearch.strategies.selection import nsga2
from evosearch.strategies.untried import Untried
from evosearch.strategies.variation import OPERATORS, Variation
from evosearch.study.trial import Proposal, Rung, Trial

ATTEMPTS = 8
"""Random masks drawn in search of one that was not tried."""


class NsgaConfig(BaseModel):
    """Settings of `genetic`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round_size: int = Field(default=16, ge=1)
    """Trials per round, which is a generation."""
    seeds: int = Field(default=16, ge=0)
    """First trials, planned by known rules at costs all over the range."""
    criterion: str = "l1"
    """Importance criterion of the plans of one threshold."""
    population: int = Field(default=32, ge=1)
    """Most parents."""
    children: int = Field(default=1024, ge=1)
    """Children that a generation makes; the two-step score leaves `round_size` of them."""
    crossover: float = Field(default=0.5, ge=0, le=1)
    """Share of children with two parents; all are mutated by one operator in equal shares."""
    compensated: int = Field(default=12, ge=1)
    """Most trials of a round that survive the compensated error."""
    shares: tuple[float, ...] = (0.25,)
    """Shares of the search split that the partial rungs score on, growing."""
    survivors: tuple[int, ...] = (8,)
    """Most trials of a round that survive each partial rung."""

    @model_validator(mode="after")
    def _rungs_match(self) -> "NsgaConfig":
        if len(self.shares) != len(self.survivors):
            raise ValueError("shares and survivors must have one entry per partial rung")
        return self


@final
class Genetic:
    """A genetic algorithm over masks; see the module."""

    name: ClassVar[str] = "genetic"
    Config: ClassVar[type[BaseModel]] = NsgaConfig

    def __init__(self, problem: Problem[NsgaConfig]) -> None:
        """Prepares the model of the loss; see `Strategy`.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
            InputError: the knowledge lacks a group's sensitivity or Gram matrix.
        """
        space, budget, config = problem.space, problem.budget, problem.config
        space.require_reachable(budget)
        self._space, self._budget = space, budget
        self._config, self._seed = config, problem.seed
        self._resource = budget.resource.name
        self._served = served_range(space, budget)
        self._model = LossModel(space, problem.probed())
        self._untried = Untried(space, budget)
        self._initial = InitialPlans(problem, self._served, self._model, config.criterion)
        two_step = self._model.two_step
        self._variation = Variation(space, two_step, self._resource, config.crossover)
        partial = zip(config.shares, config.survivors, strict=True)
        self.ladder: Sequence[RungPlan] = (
            RungPlan(rung=Rung.COMPENSATED, survivors=config.compensated),
            *(RungPlan(rung=Rung.PARTIAL, share=s, survivors=n) for s, n in partial),
        )
        # Of full evaluations each mask once: the trials, and the same as a population.
        self._complete: dict[bytes, Trial] = {}
        self._known = self._model.layout.population([])
        self._losses = np.zeros(0)
        self._tried: set[bytes] = set()
        self._earlier, self._proposed = len(problem.earlier), 0
        self._learn(problem.earlier)

    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`."""
        size, done = self._config.round_size, self._proposed
        rng = generator(self._seed, Stream.ASK, self._earlier + done)
        known = self._known
        weights = self._model.fit_errors(known.widths, known.errors, self._losses).sample(rng)
        seeds = [self._initial.plan(n) for n in range(done, min(done + size, self._config.seeds))]
        chosen = self._unseen(self._model.layout.population(seeds), set())
        made, screened = len(seeds), len(chosen)
        if len(seeds) < size:
            parents = self._parents()
            children = self._variation.children(parents, self._config.children, rng)
            made += len(children)
            children = self._unseen(children, set(chosen.keys()))
            screened += len(children)
            survivors = self._survivors(parents, children, weights, size - len(chosen))
            chosen = chosen.join(children.take(survivors))
        chosen = self._filled(chosen, rng)
        return self._proposals(chosen, weights, {"COST": made, "TWO_STEP": screened})

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns from one whole round; see `Strategy`."""
        self._proposed += len(trials)
        self._learn(trials)

    def _learn(self, trials: Sequence[Trial]) -> None:
        layout = self._model.layout
        told = layout.population([t.mask for t in trials], [t.number for t in trials])
        rows = []
        for row, (trial, key) in enumerate(zip(trials, told.keys(), strict=True)):
            self._tried.add(key)
            if trial.is_complete and key not in self._complete:
                self._complete[key] = trial
                rows.append(row)
        self._known = self._known.join(told.take(rows))
        losses = [trials[row].loss for row in rows]
        self._losses = np.concatenate([self._losses, losses])

    def _parents(self) -> Population:
        """Returns the best evaluated masks; before there are any, plans of known rules."""
        if len(self._known) == 0:
            plans = [self._initial.plan(number) for number in range(self._config.population)]
            return self._model.layout.population(plans)
        points = np.stack([self._losses, self._sizes(self._known.widths)], axis=1)
        violations = np.array([t.violation(self._budget) for t in self._complete.values()])
        return self._known.take(nsga2(points, self._config.population, violations))

    def _unseen(self, masks: Population, seen: set[bytes]) -> Population:
        """Returns the masks that fit, were not tried and are not among `seen`, each once."""
        masks = masks.take(np.flatnonzero(self._space.fits(masks.widths, self._budget)))
        first = {key: row for row, key in reversed(list(enumerate(masks.keys())))}
        return masks.take(sorted(first[key] for key in first.keys() - self._tried - seen))

    def _survivors(
        self, parents: Population, children: Population, weights: Weights, count: int
    ) -> Rows:
        """Returns the rows of the children that survive the two-step rung.

        Children that some parent is predicted to beat come last, the least beaten first: there
        is always a best unseen child at every cost, and most have nothing to win there.
        """
        points = self._predicted(children, weights)
        rivals = self._predicted(parents, weights)
        no_larger = rivals[:, 1] <= points[:, 1, None]
        best = np.where(no_larger, rivals[:, 0], np.inf).min(axis=1)
        return nsga2(points, count, np.maximum(points[:, 0] - best, 0))

    def _predicted(self, children: Population, weights: Weights) -> Array:
        """Returns predicted loss and size, `(children, 2)`.

        The model says how a child's loss differs from its parents', whose losses are known; of an
        evaluated mask the prediction is what was measured.
        """
        known = self._known
        own = self._model.losses(children.widths, children.errors, weights)
        left = self._losses - self._model.losses(known.widths, known.errors, weights)
        by_number = dict(zip(known.parents[:, 0].tolist(), left.tolist(), strict=True))
        corrections = [
            [by_number[number] for number in pair if number >= 0]
            for pair in children.parents.tolist()
        ]
        own += [sum(c) / len(c) if c else 0.0 for c in corrections]
        return np.stack([own, self._sizes(children.widths)], axis=1)

    def _sizes(self, widths: Widths) -> Array:
        """Returns the costs to minimise; none counts as less than the lower end of the range."""
        low = self._served.bounds[self._resource].low
        return np.maximum(self._space.costs(widths)[self._resource], low).astype(np.float64)

    def _filled(self, chosen: Population, rng: np.random.Generator) -> Population:
        """Returns a whole round: with random masks where it is short, as far as there are any."""
        layout = self._model.layout
        while len(chosen) < self._config.round_size:
            seen = self._tried.union(chosen.keys())
            for _ in range(ATTEMPTS):
                mask = random_mask(self._space, self._served.at(rng.random()), rng)
                drawn = layout.population([mask])
                if seen.isdisjoint(drawn.keys()):
                    break
            else:
                if self._untried.listed_masks is not None:
                    masks = layout.population(self._untried.listed_masks)
                    left = [row for row, key in enumerate(masks.keys()) if key not in seen]
                    short = self._config.round_size - len(chosen)
                    return chosen.join(masks.take(rng.permutation(left)[:short]))
            chosen = chosen.join(drawn)
        return chosen

    def _proposals(
        self, chosen: Population, weights: Weights, pool: dict[str, int]
    ) -> list[Proposal]:
        scores = self._model.losses(chosen.widths, chosen.errors, weights).tolist()
        proposals = []
        for row, score in enumerate(scores):
            genome: dict[str, Any] = {
                "operator": OPERATORS[chosen.operators[row]],
                "parents": [n for n in chosen.parents[row].tolist() if n >= 0],
                "budget": _position(self._budget, self._space.cost_of_widths(chosen.widths[row])),
                "pool": pool,
            }
            mask = self._model.layout.mask(chosen.bits[row])
            proposals.append(Proposal(mask=mask, genome=genome, two_step=score))
        return proposals


def _position(budget: Budget, cost: Cost) -> float:
    """Returns the lowest position in the budget that a cost meets, in [0, 1]."""
    shares = [
        (RESOURCES[name].of(cost) - bound.low) / (bound.high - bound.low)
        for name, bound in budget.bounds.items()
        if bound.low < bound.high
    ]
    return float(np.clip(max(shares), 0, 1)) if shares else 1.0
