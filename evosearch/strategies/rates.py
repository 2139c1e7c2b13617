"""The strategy `rates`: a sampler searches weights of groups, an allocation makes widths of them.

What a group's cut costs in loss next to all the others is learned from trials. A plan is the
allocation (`allocation`) of least weighted cost at a budget, with the two-step channels
(`two_step`) at its widths. For a range of budgets one study serves all:
`weight_g = exp(a_g + b_g * u)`, with u the logarithm of the budget, scaled to [-1, 1] over the
range (the conditional search of Liu et al. 2020, arXiv 2009.09724, with a decoder in place of a
policy network).

A group's cost by itself is the geometric mean of two predictions: the loss increase measured
when the group alone is cut (`sensitivity.calibrated`), and its two-step error to the power 4
(the loss rises much faster than the layers' errors). The first misjudges deep networks, where
all groups are cut at once; the second knows nothing of the loss.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import log
from typing import Any, ClassVar, Literal, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from pydantic import BaseModel, ConfigDict, Field

from evosearch.seeding import Stream, generator, integer
from evosearch.space.knowledge import Array, Knowledge
from evosearch.space.mask import Mask
from evosearch.space.space import Widths
from evosearch.strategies.allocation import Allocator
from evosearch.strategies.base import Problem, RungPlan, budget_positions, relative_losses
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.strategies.regression import sampled_weights
from evosearch.strategies.sensitivity import calibrated
from evosearch.strategies.spdy import sampled_coefficients
from evosearch.strategies.two_step import ErrorCurve, TwoStep
from evosearch.strategies.two_step_plan import steep
from evosearch.study.trial import Proposal, Trial

ATTEMPTS = 8
"""Asks for a plan that was not proposed before."""
STRIDE = 0.5
"""Standard deviation, in spans, of the step away from a repeated plan; times the attempt."""


class RatesConfig(BaseModel):
    """Settings of `rates`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round_size: int = Field(default=4, ge=1)
    """Trials per round."""
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

    The first trials are the uniform plan and then the plan of equal weights, each at every
    budget; after them TPE proposes, and now and then a regression on all trials; or SPDY's
    sampler alone.
    """

    name: ClassVar[str] = "rates"
    Config: ClassVar[type[BaseModel]] = RatesConfig
    needs_sensitivity: ClassVar[bool] = True
    ladder: Sequence[RungPlan] = ()

    def __init__(self, problem: Problem[RatesConfig]) -> None:
        """Prepares the error curves that allocations need; see `Strategy`.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
            InputError: the knowledge lacks a group's sensitivity or Gram matrix.
        """
        space, budget, config = problem.space, problem.budget, problem.config
        knowledge = problem.knowledge
        space.require_reachable(budget)
        self._space, self._budget = space, budget
        self._config, self._seed = config, problem.seed
        self._two_step = TwoStep(space, knowledge.gram)
        self._curves = {
            name: _predicted(self._two_step.curve(name), name, knowledge) for name in space.sizes
        }
        self._allocator = Allocator(space, self._curves)
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
        """Returns the next round; see `Strategy`."""
        study = self._study()
        tried = {trial.mask for trial in (*self._earlier, *self._told)}
        proposals: list[Proposal] = []
        for number in range(len(self._told), len(self._told) + self._config.round_size):
            proposal = self._proposal(study, number, tried)
            tried.add(proposal.mask)
            proposals.append(proposal)
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns from one whole round; see `Strategy`."""
        self._told.extend(trials)

    def _proposal(self, study: optuna.Study, number: int, tried: set[Mask]) -> Proposal:
        position = self._positions[number % len(self._positions)]
        cycle = number // len(self._positions)
        if cycle == 0:
            mask = self._two_step.mask(uniform_widths(self._space, self._budget.at(position)))
            return Proposal(mask=mask, genome={"budget": position, "operator": "uniform"})
        if cycle == 1:
            return self._decoded(position, "equal", dict.fromkeys(self._distributions, 0.0))
        for attempt in range(ATTEMPTS):
            proposal = self._decoded(position, *self._weights(study, number, attempt))
            if proposal.mask not in tried:
                break
        return proposal

    def _weights(
        self, study: optuna.Study, number: int, attempt: int
    ) -> tuple[str, dict[str, float]]:
        """Returns who proposes weights, and the weights, as parameters of the study."""
        key = len(self._earlier) + number
        rng = generator(self._seed, Stream.ASK, key, attempt)
        if self._config.sampler == "spdy":
            return "spdy", self._locally_drawn(rng, attempt)
        complete = [trial for trial in (*self._earlier, *self._told) if trial.is_complete]
        if len(complete) >= self._config.startup and rng.random() < self._config.regression:
            return "regression", self._regressed(complete, rng)
        # A fresh sampler before every ask, so that nothing but trials and seed decides; asks of
        # this round stay in the study as running trials, which TPE keeps away from.
        study.sampler = optuna.samplers.TPESampler(
            seed=integer(self._seed, Stream.ASK, key, attempt),
            n_startup_trials=self._config.startup,
            multivariate=True,
            constant_liar=True,
        )
        weights = dict(study.ask(self._distributions).params)
        if attempt == 0:
            return "tpe", weights
        # A repeated plan teaches nothing: step away from it, further at every attempt.
        moved = {}
        for name, weight in weights.items():
            span = self._spans[name]
            step = rng.normal(scale=STRIDE * attempt * span)
            moved[name] = float(np.clip(weight + step, -span, span))
        return "tpe", moved

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
        costs = np.stack([self._group_costs(self._space.widths(t.mask)) for t in complete])
        losses = np.array([max(t.evaluation.score.loss, 1e-12) for t in complete if t.evaluation])
        span = self._config.span
        logs = np.log(np.maximum(sampled_weights(costs, losses, rng), np.exp(-span)))
        centred = np.clip(logs - logs.mean(), -span, span).tolist()
        by_group = {f"a:{g}": x for g, x in zip(self._space.sizes, centred, strict=True)}
        return dict.fromkeys(self._distributions, 0.0) | by_group

    def _group_costs(self, widths: Widths) -> Array:
        """Returns what each group's cut costs by itself, `(groups,)`."""
        pairs = zip(widths, self._curves.values(), strict=True)
        return np.array([np.interp(width, c.widths, c.errors) for width, c in pairs])

    def _decoded(self, position: float, operator: str, weights: dict[str, float]) -> Proposal:
        """Returns the plan of least weighted error at a position in the budget."""
        scaled = self._scaled_log(position)
        logs = [weights[f"a:{g}"] + weights.get(f"b:{g}", 0) * scaled for g in self._space.sizes]
        widths = self._allocator.allocate(np.exp(logs), self._budget.at(position))
        genome: dict[str, Any] = {"budget": position, "operator": operator, "weights": weights}
        return Proposal(mask=self._two_step.mask(widths), genome=genome)

    def _scaled_log(self, position: float) -> float:
        """Returns the logarithm of the budget at a position, from -1 to 1 over the range."""
        scaled = [
            2 * log(bound.at(position) / bound.low) / log(bound.high / bound.low) - 1
            for bound in self._budget.bounds.values()
            if bound.low < bound.high
        ]
        return float(np.mean(scaled)) if scaled else 0.0

    def _study(self) -> optuna.Study:
        """Returns a study in memory of all trials with weights within the spans.

        SPDY's sampler knows no spans. Each is told its loss relative to the uniform plan of its
        budget.
        """
        relative = relative_losses(self._told, lambda t: t.genome["operator"] == "uniform")
        with _quiet():
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.add_trials(
            optuna.trial.create_trial(
                params=dict(trial.genome["weights"]),
                distributions=self._distributions,
                value=relative[trial.number],
            )
            for trial in self._told
            if "weights" in trial.genome
            and trial.genome["operator"] != "spdy"
            and trial.number in relative
        )
        return study


def _predicted(curve: ErrorCurve, group: str, knowledge: Knowledge) -> ErrorCurve:
    measured = calibrated(curve, group, knowledge.sensitivity)
    return ErrorCurve(widths=curve.widths, errors=np.sqrt(measured.errors * steep(curve).errors))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from announcing a study that nobody else will see."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
