"""The strategy `rates`: a sampler searches weights of groups, an allocation makes widths of them.

What a group's cut costs in loss next to all the others is learned from trials. A plan is the
allocation (`allocation`) of least weighted cost at a budget, with the two-step channels
(`two_step`) at its widths. For a range of budgets one study serves all:
`weight_g = exp(a_g + b_g * u)`, with u the logarithm of the budget, scaled to [-1, 1] over the
range (the conditional search of Liu et al. 2020, arXiv 2009.09724, with a decoder in place of a
policy network).

A group's cost by itself is a prediction from its two-step errors and its measured sensitivity
(`costcurves`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import log
from typing import Any, ClassVar, Literal, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from pydantic import BaseModel, ConfigDict, Field

from evosearch.seeding import Stream, generator, integer
from evosearch.space.knowledge import Array
from evosearch.space.space import Widths
from evosearch.strategies.allocation import Allocator
from evosearch.strategies.base import (
    Problem,
    RungPlan,
    budget_positions,
    met_position,
    relative_losses,
)
from evosearch.strategies.costcurves import Curves, costs_of, predicted, to_power
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.strategies.regression import sampled_weights
from evosearch.strategies.spdy import sampled_coefficients
from evosearch.strategies.two_step import TwoStep
from evosearch.strategies.two_step_plan import STEEPNESS
from evosearch.strategies.untried import Untried
from evosearch.strategies.weightstudy import weight_study
from evosearch.study.trial import Proposal, Trial

ATTEMPTS = 8
"""Weights that are decoded in search of a plan that was not proposed before."""
STRIDE = 0.5
"""Standard deviation, in spans, of the step away from a repeated plan; times the attempt."""


class RatesConfig(BaseModel):
    """Settings of `rates`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round_size: int = Field(default=4, ge=1)
    """Trials per round."""
    unprobed: int = Field(default=4, ge=1)
    """First trials, at least, that are planned without sensitivities. A whole round of them is
    evaluated before those are measured."""
    budgets: int = Field(default=5, ge=2)
    """Budgets that a range is served at, both ends included."""
    span: float = Field(default=2.0, gt=0)
    """Log weights `a` are searched from minus this to this."""
    slope_span: float = Field(default=1.0, gt=0)
    """Slopes `b` likewise."""
    sampler: Literal["tpe", "spdy"] = "tpe"
    """Who searches the weights: Optuna's TPE, or SPDY's own local search (see `spdy`)."""
    startup: int = Field(default=10, ge=1)
    """Trials with weights before the sampler stops drawing at random; SPDY's number is 100."""
    regression: float = Field(default=0.25, ge=0, le=1)
    """Share of TPE's trials, after as many, whose weights are drawn from a regression instead."""
    failures: int = Field(default=100, ge=1)
    """Draws in a row without gain after which SPDY's sampler changes one weight fewer."""


@final
class Rates:
    """A search over weights, decoded within the budget.

    The first trials are the uniform plan at every budget and, where those are few, allocations of
    the two-step errors alone, to falling powers. With the sensitivities comes the plan of equal
    weights at every budget; then TPE proposes, and now and then a regression on all trials; or
    SPDY's sampler alone. Where weights give a plan that was tried, the plan of least error among
    those that were not comes in its place.
    """

    name: ClassVar[str] = "rates"
    Config: ClassVar[type[BaseModel]] = RatesConfig
    ladder: Sequence[RungPlan] = ()

    def __init__(self, problem: Problem[RatesConfig]) -> None:
        """Prepares the first plans; see `Strategy`.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
            InputError: the knowledge lacks a group's Gram matrix.
        """
        space, budget, config = problem.space, problem.budget, problem.config
        space.require_reachable(budget)
        self._problem, self._space, self._budget = problem, space, budget
        self._config, self._seed = config, problem.seed
        self._two_step = TwoStep(space, problem.knowledge.gram)
        self._untried = Untried(space, budget)
        self._positions = budget_positions(budget, config.budgets)
        self._spans = {f"a:{group}": config.span for group in space.sizes}
        if budget.is_range:
            self._spans |= {f"b:{group}": config.slope_span for group in space.sizes}
        self._distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(-span, span) for name, span in self._spans.items()
        }
        self._earlier = tuple(problem.earlier)
        self._told: list[Trial] = []

    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`.

        Raises:
            InputError: the knowledge lacks a group's sensitivity.
        """
        study = weight_study(self._told, self._distributions)
        tried = {self._space.widths(t.mask).tobytes() for t in (*self._earlier, *self._told)}
        proposals: list[Proposal] = []
        for number in range(len(self._told), len(self._told) + self._config.round_size):
            proposal = self._proposal(study, number, tried)
            if proposal is None:
                break
            tried.add(self._space.widths(proposal.mask).tobytes())
            proposals.append(proposal)
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns from one whole round; see `Strategy`."""
        self._told.extend(trials)

    @cached_property
    def _two_step_curves(self) -> Curves:
        return {name: self._two_step.curve(name) for name in self._space.sizes}

    @cached_property
    def _curves(self) -> Curves:
        """What each group's cut is predicted to cost; see the module."""
        return predicted(self._two_step_curves, self._problem.probed())

    @cached_property
    def _allocator(self) -> Allocator:
        return Allocator(self._space, self._curves)

    def _proposal(self, study: optuna.Study, number: int, tried: set[bytes]) -> Proposal | None:
        """Returns the proposal of a trial; None where all plans were tried."""
        budgets = len(self._positions)
        position = self._positions[number % budgets]
        if number < budgets:  # even if it was tried: losses are told relative to it
            widths = uniform_widths(self._space, self._budget.at(position))
            return self._planned(widths, position, "uniform")
        rng = generator(self._seed, Stream.ASK, len(self._earlier) + number, 0)
        unprobed = max(budgets, self._config.unprobed)
        if number < unprobed:
            power = max(1, STEEPNESS >> number // budgets - 1)
            curves = to_power(self._two_step_curves, power)
            weights = np.ones(len(curves))
            allocator = Allocator(self._space, curves)
            widths = allocator.allocate(weights, self._budget.at(position))
            if widths.tobytes() not in tried:
                return self._planned(widths, position, "two_step")
            return self._least_untried(curves, position, tried, rng)
        operator, named = "equal", dict.fromkeys(self._spans, 0.0)
        if number >= unprobed + budgets:
            operator, named = self._weights(study, number, rng)
        moved = named
        for attempt in range(1, ATTEMPTS + 1):
            widths = self._decoded(position, moved)
            if widths.tobytes() not in tried:
                return self._planned(widths, position, operator, weights=moved)
            if self._untried.listed_plans is not None:
                break
            moved = self._elsewhere(operator, named, number, attempt)
        return self._least_untried(self._curves, position, tried, rng)

    def _elsewhere(
        self, operator: str, weights: dict[str, float], number: int, attempt: int
    ) -> dict[str, float]:
        """Returns other weights than those of a repeated plan, further off at every attempt."""
        rng = generator(self._seed, Stream.ASK, len(self._earlier) + number, attempt)
        if operator == "spdy":
            return self._locally_drawn(rng, attempt)
        moved = {}
        for name, weight in weights.items():
            span = self._spans[name]
            step = rng.normal(scale=STRIDE * attempt * span)
            moved[name] = float(np.clip(weight + step, -span, span))
        return moved

    def _least_untried(
        self,
        curves: Curves,
        position: float,
        tried: set[bytes],
        rng: np.random.Generator,
    ) -> Proposal | None:
        """Returns the plan of least error, all groups alike, among those that were not tried."""
        plans = self._untried.plans(tried, self._budget.at(position), rng)
        if not len(plans):
            if self._untried.listed_plans is not None:
                return None
            plans = uniform_widths(self._space, self._budget.at(position))[None]
        best = plans[np.argmin(costs_of(curves, plans).sum(axis=1))]
        met = met_position(self._space, self._budget, self._positions, best, position)
        return self._planned(best, met, "untried")

    def _planned(self, widths: Widths, position: float, operator: str, **genome: Any) -> Proposal:
        genome = {"budget": position, "operator": operator, **genome}
        return Proposal(mask=self._two_step.mask(widths), genome=genome)

    def _weights(
        self, study: optuna.Study, number: int, rng: np.random.Generator
    ) -> tuple[str, dict[str, float]]:
        """Returns who proposes weights, and the weights, as parameters of the study."""
        if self._config.sampler == "spdy":
            return "spdy", self._locally_drawn(rng, 0)
        complete = [trial for trial in (*self._earlier, *self._told) if trial.is_complete]
        if len(complete) >= self._config.startup and rng.random() < self._config.regression:
            return "regression", self._regressed(complete, rng)
        # A fresh sampler before every ask, so that nothing but trials and seed decides; asks of
        # this round stay in the study as running trials, which TPE keeps away from.
        study.sampler = optuna.samplers.TPESampler(
            seed=integer(self._seed, Stream.ASK, len(self._earlier) + number, 0),
            n_startup_trials=self._config.startup,
            multivariate=True,
            constant_liar=True,
        )
        return "tpe", dict(study.ask(self._distributions).params)

    def _locally_drawn(self, rng: np.random.Generator, attempt: int) -> dict[str, float]:
        """Returns the weights that SPDY's sampler proposes: logarithms of its coefficients."""
        relative = relative_losses(self._told, lambda t: t.genome["operator"] == "uniform")
        names = [f"a:{group}" for group in self._space.sizes]
        history = [
            (
                np.exp([trial.genome["weights"][name] for name in names]),
                relative[trial.number] if trial.is_complete else np.inf,
            )
            for trial in self._told
            if trial.genome["operator"] == "spdy"
        ]
        startup, failures = self._config.startup, self._config.failures
        coefficients = sampled_coefficients(
            history, len(names), rng, draws=startup, failures=failures, more=attempt
        )
        return dict(zip(names, np.log(coefficients).tolist(), strict=True))

    def _regressed(self, complete: Sequence[Trial], rng: np.random.Generator) -> dict[str, float]:
        widths = np.stack([self._space.widths(trial.mask) for trial in complete])
        costs = costs_of(self._curves, widths)
        losses = np.array([max(t.evaluation.score.loss, 1e-12) for t in complete if t.evaluation])
        span = self._config.span
        logs = np.log(np.maximum(sampled_weights(costs, losses, rng), np.exp(-span)))
        centred = np.clip(logs - logs.mean(), -span, span).tolist()
        by_group = {f"a:{g}": x for g, x in zip(self._space.sizes, centred, strict=True)}
        return dict.fromkeys(self._distributions, 0.0) | by_group

    def _decoded(self, position: float, weights: Mapping[str, float]) -> Widths:
        """Returns the plan of least weighted error at a position in the budget."""
        return self._allocator.allocate(self._at(position, weights), self._budget.at(position))

    def _at(self, position: float, weights: Mapping[str, float]) -> Array:
        """Returns the groups' weights at a position in the budget, `(groups,)`."""
        scaled = self._scaled_log(position)
        logs = [weights[f"a:{g}"] + weights.get(f"b:{g}", 0) * scaled for g in self._space.sizes]
        return np.asarray(np.exp(logs))

    def _scaled_log(self, position: float) -> float:
        """Returns the logarithm of the budget at a position, from -1 to 1 over the range."""
        scaled = [
            2 * log(bound.at(position) / bound.low) / log(bound.high / bound.low) - 1
            for bound in self._budget.bounds.values()
            if bound.low < bound.high
        ]
        return float(np.mean(scaled)) if scaled else 0.0
