"""The strategy `policy`: one policy gives the keep ratios of every group, for any budget.

After CACP (conditional automated channel pruning, Liu et al. 2020, arXiv 2009.09724, the authors'
code): group by group, a policy that knows the target turns what is known of the group, and of what
was decided before it, into a keep ratio; it is trained on all targets together. This program's
form: the policy is Gaussian with one hidden layer and learns by REINFORCE from the recorded
trials; its ratios are scaled together into the budget, where theirs are clipped so that the groups
left can still meet it; rewards are losses relative to the uniform plan, where theirs are
accuracies. What a space does not hold (kernel, stride, map size) the policy knows by its cost.
"""

from collections.abc import Sequence
from math import log
from typing import Any, ClassVar, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget
from evosearch.space.knowledge import Array
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import Problem, RungPlan, budget_positions, relative_losses
from evosearch.strategies.fixed_plans import scaled_widths, uniform_widths
from evosearch.strategies.gaussian import LEAST, MOST, GaussianPolicy
from evosearch.strategies.two_step import TwoStep
from evosearch.study.trial import Proposal, Trial

ATTEMPTS = 8
"""Draws for a plan that was not proposed before, each wider than the last."""
LEAST_NOISE = 0.05
"""Standard deviation of keep ratios under which the noise does not fall."""
MEMORY = 0.9
"""Share of the baseline of rewards that stays at each trial."""


class PolicyConfig(BaseModel):
    """Settings of `policy`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round_size: int = Field(default=4, ge=1)
    """Trials per round."""
    budgets: int = Field(default=5, ge=2)
    """Budgets that a range is served at, both ends included."""
    hidden: int = Field(default=16, ge=1)
    """Units of the policy's hidden layer."""
    rate: float = Field(default=0.02, gt=0)
    """Learning rate of its weights (Adam's)."""
    noise: float = Field(default=0.5, gt=0)
    """Standard deviation of the first keep ratios around the policy's."""
    decay: float = Field(default=0.95, gt=0, le=1)
    """Factor on that deviation at every trial."""


@final
class Policy:
    """A policy trained by the trials that it proposed, after a uniform plan at every budget."""

    name: ClassVar[str] = "policy"
    Config: ClassVar[type[BaseModel]] = PolicyConfig
    ladder: Sequence[RungPlan] = ()

    def __init__(self, problem: Problem[PolicyConfig]) -> None:
        """Draws the untrained policy; see `Strategy`.

        Raises:
            InfeasibleBudget: the lower end of the budget is out of reach.
            InputError: the knowledge lacks a group's Gram matrix.
        """
        problem.space.require_reachable(problem.budget)
        self._space, self._budget = problem.space, problem.budget
        self._config, self._seed = problem.config, problem.seed
        self._two_step = TwoStep(problem.space, problem.knowledge.gram)
        self._positions = budget_positions(problem.budget, problem.config.budgets)
        self._earlier = tuple(problem.earlier)
        self._told: list[Trial] = []
        self._walk = _Walk(problem.space, problem.budget)
        rng = generator(problem.seed, Stream.ASK, "policy")
        self._policy = GaussianPolicy(self._walk.features, problem.config.hidden, rng)
        self._baseline: float | None = None

    def ask(self) -> list[Proposal]:
        """Returns the next round; see `Strategy`."""
        tried = {trial.mask for trial in (*self._earlier, *self._told)}
        proposals: list[Proposal] = []
        for number in range(len(self._told), len(self._told) + self._config.round_size):
            proposal = self._proposal(number, tried)
            tried.add(proposal.mask)
            proposals.append(proposal)
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Makes one step of REINFORCE on a whole round; see `Strategy`.

        The reward is the negative logarithm of the loss over that of the uniform plan of the same
        budget; that of a trial that failed is the lowest so far.
        """
        self._told.extend(trials)
        relative = relative_losses(self._told, lambda t: t.genome["operator"] == "uniform")
        if not relative:
            return
        worst = max(relative.values())
        total: dict[str, Array] = {}
        for trial in trials:
            if "actions" not in trial.genome:
                continue
            reward = -relative.get(trial.number, worst)
            baseline = reward if self._baseline is None else self._baseline
            self._baseline = MEMORY * baseline + (1 - MEMORY) * reward
            actions = np.array([trial.genome["actions"][name] for name in self._space.sizes])
            states = self._walk.states(actions, trial.genome["budget"])
            score = self._policy.score(states, actions, trial.genome["deviation"])
            for name, gradient in score.items():
                total[name] = total.get(name, 0.0) + (reward - baseline) * gradient
        if total:
            self._policy.step(total, self._config.rate)

    def _proposal(self, number: int, tried: set[Mask]) -> Proposal:
        position = self._positions[number % len(self._positions)]
        if number < len(self._positions):
            mask = self._two_step.mask(uniform_widths(self._space, self._budget.at(position)))
            return Proposal(mask=mask, genome={"budget": position, "operator": "uniform"})
        fallen = self._config.noise * self._config.decay ** (number - len(self._positions))
        for attempt in range(ATTEMPTS):
            rng = generator(self._seed, Stream.ASK, len(self._earlier) + number, attempt)
            deviation = max(fallen, LEAST_NOISE) * (1 + attempt)
            proposal = self._drawn(position, deviation, rng)
            if proposal.mask not in tried:
                break
        return proposal

    def _drawn(self, position: float, deviation: float, rng: np.random.Generator) -> Proposal:
        """Returns the plan of ratios drawn around the policy's, group after group."""
        noise = deviation * rng.normal(size=len(self._space.groups))
        actions = np.zeros(len(noise))
        for index in range(len(actions)):
            state = self._walk.state(actions, index, position)
            actions[index] = self._policy.mean(state[None])[0] + noise[index]
        ratios = np.clip(actions, LEAST, MOST)
        widths = scaled_widths(self._space, self._budget.at(position), ratios)
        named = dict(zip(self._space.sizes, actions.tolist(), strict=True))
        genome: dict[str, Any] = {"budget": position, "operator": "policy"}
        genome |= {"actions": named, "deviation": deviation}
        return Proposal(mask=self._two_step.mask(widths), genome=genome)


@final
class _Walk:
    """The states that a policy sees on its way through the groups, each feature of unit size."""

    features = 7

    def __init__(self, space: SearchSpace, budget: Budget) -> None:
        self._space, self._budget = space, budget
        self._resource = next(iter(budget.bounds))
        self._base = self._costs(space.full_widths[None])[0]
        alone = np.where(np.eye(len(space.groups)), space.least_widths, space.full_widths)
        self._shares = 1 - self._costs(alone) / self._base

    def states(self, actions: Array, position: float) -> Array:
        """Returns the states of a whole way, `(groups, features)`."""
        return np.stack([self.state(actions, i, position) for i in range(len(actions))])

    def state(self, actions: Array, index: int, position: float) -> Array:
        """Returns the state at a group, which depends on the actions before it alone.

        It is: the target; the group's place, size, and share of the cost; the shares of the cost
        that are gone and that the groups from here on can still take; and the last keep ratio.
        """
        sizes = self._space.full_widths
        ratios = np.clip(actions[:index], LEAST, MOST)
        now, least = sizes.astype(np.float64), self._space.least_widths.astype(np.float64)
        now[:index] = least[:index] = np.maximum(np.round(ratios * sizes[:index]), 1)
        cost, lowest = self._costs(np.stack([now, least]).astype(np.int64)) / self._base
        return np.array(
            [
                self._target(position),
                index / max(1, len(sizes) - 1),
                sizes[index] / sizes.max(),
                self._shares[index],
                1 - cost,
                cost - lowest,
                ratios[-1] if index else 1.0,
            ]
        )

    def _costs(self, widths: Any) -> Array:
        return np.asarray(self._space.costs(widths)[self._resource], dtype=np.float64)

    def _target(self, position: float) -> float:
        """Returns the logarithm of the budget at a position, from -1 to 1 over its range."""
        bound = self._budget.bounds[self._resource]
        if bound.low == bound.high:
            return 0.0
        return 2 * log(bound.at(position) / bound.low) / log(bound.high / bound.low) - 1
