"""The strategy `rates`: order of operators, decoding, what the sampler is told, regression."""

from itertools import pairwise

import numpy as np
import pytest

from evosearch.strategies.base import relative_losses
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.strategies.rates import Rates
from evosearch.strategies.regression import sampled_weights
from evosearch.strategies.two_step import TwoStep
from evosearch.study.trial import Trial
from tests.strategies.problems import budget_of, built, chain, knowledge_of, outcome

SPACE = chain([16, 20, 24, 18])
KNOWLEDGE = knowledge_of(SPACE, 5)
RANGE = budget_of(SPACE, macs=(0.3, 0.7))


def build(budget=RANGE, seed: int = 0, **settings: object) -> Rates:
    return built(Rates, SPACE, budget, KNOWLEDGE, seed=seed, **settings)


def search(strategy: Rates, rounds: int, loss) -> list[Trial]:
    told: list[Trial] = []
    for generation in range(rounds):
        numbered = enumerate(strategy.ask(), len(told))
        trials = [outcome(SPACE, p, i, generation, loss(p, i)) for i, p in numbered]
        strategy.tell(trials)
        told += trials
    return told


def test_uniform_then_equal_then_tpe() -> None:
    proposals = build(round_size=14, regression=0).ask()
    operators = [p.genome["operator"] for p in proposals]
    assert operators == ["uniform"] * 5 + ["equal"] * 5 + ["tpe"] * 4
    two_step = TwoStep(SPACE, KNOWLEDGE.gram)
    for proposal in proposals[:5]:
        budget = RANGE.at(proposal.genome["budget"])
        assert proposal.mask == two_step.mask(uniform_widths(SPACE, budget))
    assert set(proposals[5].genome["weights"].values()) == {0.0}


def test_weights_stay_in_their_spans_and_slopes_need_a_range() -> None:
    told = search(build(span=1.5, slope_span=0.3), 8, lambda p, i: 1.0 + i % 5)
    weights = [t.genome["weights"] for t in told if "weights" in t.genome]
    assert {key for w in weights for key in w} == {f"{x}:g{i}" for x in "ab" for i in range(4)}
    for own in weights:
        assert all(abs(x) <= (1.5 if key[0] == "a" else 0.3) for key, x in own.items())
    single = search(build(budget_of(SPACE, macs=0.5)), 3, lambda p, i: 1.0)
    assert all(key[0] == "a" for t in single for key in t.genome.get("weights", {}))


def test_channels_are_the_two_step_subsets_of_the_widths() -> None:
    two_step = TwoStep(SPACE, KNOWLEDGE.gram)
    for trial in search(build(), 4, lambda p, i: 1.0):
        assert trial.mask == two_step.mask(SPACE.widths(trial.mask))


def test_tpe_learns_which_group_matters() -> None:
    # The loss is group 2's alone: its weight must rise, at every budget.
    def loss(proposal, number: int) -> float:
        return 0.1 + (1 - float(proposal.mask["g2"].mean())) ** 2

    told = search(build(regression=0), 12, loss)
    late = [t.genome["weights"] for t in told[-12:]]
    early = [t.genome["weights"] for t in told[10:20] if t.genome["operator"] == "tpe"]

    def margin(weights: dict[str, float]) -> float:
        return weights["a:g2"] - float(np.mean([weights[f"a:g{i}"] for i in (0, 1, 3)]))

    assert np.mean([margin(w) for w in late]) > 0.8
    assert np.mean([margin(w) for w in late]) > np.mean([margin(w) for w in early])


def test_regression_takes_its_share() -> None:
    told = search(build(regression=1.0, round_size=5), 5, lambda p, i: 1.0 + i / 100)
    operators = [t.genome["operator"] for t in told]
    assert operators[10:] == ["regression"] * 15
    without = search(build(regression=0.0, round_size=5), 4, lambda p, i: 1.0 + i / 100)
    assert {t.genome["operator"] for t in without[10:]} == {"tpe"}


def test_relative_losses() -> None:
    proposals = build(round_size=12).ask()
    losses = [2.0, 1.0, None, 0.5, 0.5, 1.0, 0.5, 0.3, 0.5, 0.0, 4.0, None]
    trials = [
        outcome(SPACE, p, i, 0, loss)
        for i, (p, loss) in enumerate(zip(proposals, losses, strict=True))
    ]
    found = relative_losses(trials, lambda t: t.genome["operator"] == "uniform")
    assert sorted(found) == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    expected = {0: 0.0, 5: np.log(0.5), 10: np.log(2), 1: 0.0, 6: np.log(0.5), 7: 0.0, 8: 0.0}
    for number, value in expected.items():
        assert found[number] == pytest.approx(value), number
    assert found[9] < -20  # a loss of 0 is finite here


def test_relative_losses_without_any_success() -> None:
    trials = [outcome(SPACE, p, i, 0, None) for i, p in enumerate(build().ask())]
    assert relative_losses(trials, lambda t: True) == {}


# Regression


def test_regression_recovers_weights() -> None:
    rng = np.random.default_rng(0)
    true = np.array([0.2, 0.5, 1.0, 3.0])
    costs = rng.random((200, 4))
    losses = (0.3 + costs @ true) * (1 + 0.01 * rng.normal(size=200))
    draws = np.stack([sampled_weights(costs, losses, rng) for _ in range(50)])
    mean = draws.mean(axis=0)
    np.testing.assert_allclose(mean / mean[2], true / true[2], atol=0.1)
    assert np.all(draws.std(axis=0) < 0.1)


def test_regression_of_few_trials_stays_near_equal_and_explores() -> None:
    rng = np.random.default_rng(0)
    costs = rng.random((5, 12))
    losses = 0.3 + costs.sum(axis=1)
    draws = np.stack([sampled_weights(costs, losses, rng) for _ in range(200)])
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.4)
    assert np.all(draws.std(axis=0) > 0.3)


def test_regression_survives_losses_that_contradict_the_costs() -> None:
    rng = np.random.default_rng(0)
    costs = rng.random((30, 3))
    weights = sampled_weights(costs, 5.0 - costs.sum(axis=1), rng)
    assert np.all(weights > 0)
    assert np.all(np.isfinite(sampled_weights(costs, np.ones(30), rng)))
    assert np.all(np.isfinite(sampled_weights(np.zeros((30, 3)), rng.random(30) + 1, rng)))


def test_draws_differ_and_follow_the_generator() -> None:
    rng = np.random.default_rng(0)
    costs, losses = rng.random((20, 3)), rng.random(20) + 1
    draws = [sampled_weights(costs, losses, np.random.default_rng(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert any(a.tolist() != b.tolist() for a, b in pairwise(draws))
