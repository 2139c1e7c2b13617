"""The strategy `policy`: gradients of its network, what it learns, and that it learns for all."""

import numpy as np
import pytest

from evosearch.strategies.base import relative_losses
from evosearch.strategies.fixed_plans import scaled_widths, uniform_widths
from evosearch.strategies.gaussian import LEAST, MOST, GaussianPolicy
from evosearch.strategies.policy import Policy
from evosearch.strategies.two_step import TwoStep
from evosearch.study.trial import Trial
from tests.strategies.problems import budget_of, built, chain, knowledge_of, outcome

SPACE = chain([16, 20, 24, 18])
KNOWLEDGE = knowledge_of(SPACE, 5)
RANGE = budget_of(SPACE, macs=(0.3, 0.7))


def build(budget=RANGE, **settings: object) -> Policy:
    return built(Policy, SPACE, budget, KNOWLEDGE, **settings)


def search(strategy: Policy, rounds: int, loss) -> list[Trial]:
    told: list[Trial] = []
    for generation in range(rounds):
        numbered = enumerate(strategy.ask(), len(told))
        trials = [outcome(SPACE, p, i, generation, loss(p)) for i, p in numbered]
        strategy.tell(trials)
        told += trials
    return told


# The network


def log_probability(policy: GaussianPolicy, states, actions, deviation: float) -> float:
    return float(-0.5 * (((actions - policy.mean(states)) / deviation) ** 2).sum())


@pytest.mark.parametrize("name", ["W", "b", "v", "c"])
def test_the_score_is_the_gradient_of_the_log_probability(name: str) -> None:
    rng = np.random.default_rng(0)
    policy = GaussianPolicy(3, 4, rng)
    states, actions = rng.normal(size=(5, 3)), rng.random(5)
    found = policy.score(states, actions, 0.3)[name]
    weights, step = policy.weights[name].copy(), 1e-6
    for place in np.ndindex(weights.shape):
        ends = []
        for sign in (1, -1):
            policy.weights[name] = weights.copy()
            policy.weights[name][place] += sign * step
            ends.append(log_probability(policy, states, actions, 0.3))
        assert found[place] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_means_are_keep_ratios() -> None:
    policy = GaussianPolicy(2, 3, np.random.default_rng(0))
    assert policy.mean(np.zeros((1, 2)))[0] == pytest.approx((LEAST + MOST) / 2)
    policy.weights["c"] = np.array([50.0])
    assert policy.mean(np.ones((1, 2)))[0] == pytest.approx(MOST)
    policy.weights["c"] = np.array([-50.0])
    assert policy.mean(np.ones((1, 2)))[0] == pytest.approx(LEAST)


def test_the_first_step_of_adam_is_the_rate_up_the_gradient() -> None:
    policy = GaussianPolicy(2, 3, np.random.default_rng(0))
    before = policy.weights["b"].copy()
    policy.step({"b": np.array([4.0, -0.5, 0.0])}, 0.1)
    np.testing.assert_allclose(policy.weights["b"] - before, [0.1, -0.1, 0.0], atol=1e-6)


# The strategy


def test_scaled_widths_by_hand() -> None:
    """Ratios 1, 1/2, 1/4, 1/2 fit no more than times 0.75 or so; all are scaled alike."""
    budget = budget_of(SPACE, macs=0.2)
    ratios = np.array([1, 0.5, 0.25, 0.5])
    widths = scaled_widths(SPACE, budget, ratios)
    assert SPACE.fits(widths[None], budget)[0]
    shares = widths / SPACE.full_widths / ratios
    assert np.ptp(shares) < 0.2
    larger = np.ceil(widths * 1.15 + 0.5).astype(int)
    assert not SPACE.fits(larger[None], budget)[0]


def test_uniform_at_every_budget_then_the_policy() -> None:
    proposals = build(round_size=9).ask()
    assert [p.genome["operator"] for p in proposals] == ["uniform"] * 5 + ["policy"] * 4
    two_step = TwoStep(SPACE, KNOWLEDGE.gram)
    for proposal in proposals[:5]:
        budget = RANGE.at(proposal.genome["budget"])
        assert proposal.mask == two_step.mask(uniform_widths(SPACE, budget))
    # The noise falls by its factor at every trial.
    deviations = [p.genome["deviation"] for p in proposals[5:]]
    assert deviations == pytest.approx([0.5 * 0.95**n for n in range(4)])


def test_channels_are_the_two_step_subsets_of_the_widths() -> None:
    two_step = TwoStep(SPACE, KNOWLEDGE.gram)
    for trial in search(build(), 4, lambda p: 1.0):
        assert trial.mask == two_step.mask(SPACE.widths(trial.mask))


def test_one_policy_learns_which_group_matters_at_every_budget() -> None:
    # The loss is group 2's alone.
    def loss(proposal) -> float:
        return 0.1 + (1 - float(proposal.mask["g2"].mean())) ** 2

    told = search(build(round_size=5), 40, loss)
    relative = relative_losses(told, lambda t: t.genome["operator"] == "uniform")
    for position in (0.0, 0.25, 0.5, 0.75, 1.0):
        here = [relative[t.number] for t in told[-50:] if t.genome["budget"] == position]
        assert np.mean(here) < -0.2  # a fifth less than the uniform plan of that budget
    first = [relative[t.number] for t in told[5:30]]
    assert np.mean([relative[t.number] for t in told[-50:]]) < np.mean(first) - 0.2


def test_what_was_good_is_made_more_likely() -> None:
    """One trial is better than the others: the means move towards its ratios."""
    strategy, twin = build(budget_of(SPACE, macs=0.5)), build(budget_of(SPACE, macs=0.5))
    first = strategy.ask()
    assert [p.genome for p in twin.ask()] == [p.genome for p in first]
    actions = np.array(list(first[3].genome["actions"].values()))
    for told, last in ((strategy, 0.2), (twin, 5.0)):
        losses = [1.0, 1.0, 1.0, last]
        trials = [
            outcome(SPACE, p, i, 0, x) for i, (p, x) in enumerate(zip(first, losses, strict=True))
        ]
        told.tell(trials)
    nearer = _log_probability_of(strategy, actions) - _log_probability_of(twin, actions)
    assert nearer > 0


def _log_probability_of(strategy: Policy, actions) -> float:
    states = strategy._walk.states(actions, 1.0)
    return log_probability(strategy._policy, states, actions, 0.5)


def test_a_failure_counts_as_the_worst_so_far() -> None:
    def asked(last: float | None) -> list[object]:
        strategy = build()
        # Five uniform plans, whose losses are those that others are held against.
        losses = [1.0] * 5 + [1.2, 0.8, 1.1, 0.9, 2.5, 1.0, last]
        for generation in range(3):
            numbered = enumerate(strategy.ask(), 4 * generation)
            strategy.tell([outcome(SPACE, p, i, generation, losses[i]) for i, p in numbered])
        return [p.genome for p in strategy.ask()]

    assert asked(None) == asked(2.5)
    assert asked(None) != asked(0.5)
