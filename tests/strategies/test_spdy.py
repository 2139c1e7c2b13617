"""SPDY's sampler: when it draws all, how much it changes, and what it starts from."""

import numpy as np
import pytest

from evosearch.space.knowledge import Array
from evosearch.strategies.rates import Rates
from evosearch.strategies.spdy import sampled_coefficients
from tests.strategies.problems import budget_of, built, chain, knowledge_of, outcome

COUNT = 40


def sampled(history: list[tuple[Array, float]], seed: int = 0, **settings: int) -> Array:
    options = {"draws": 3, "failures": 2} | settings
    return sampled_coefficients(history, COUNT, np.random.default_rng(seed), **options)


def tried(*losses: float) -> list[tuple[Array, float]]:
    """Coefficients that are all the trial's number, with losses."""
    return [(np.full(COUNT, float(number)), loss) for number, loss in enumerate(losses)]


def changed(history: list[tuple[Array, float]], start: int, **settings: int) -> int:
    """Returns how many coefficients are not those of a trial; all others must be."""
    counts = {int((sampled(history, seed, **settings) != start).sum()) for seed in range(5)}
    assert len(counts) == 1
    return counts.pop()


def test_first_all_coefficients_are_drawn() -> None:
    draws = np.concatenate([sampled(tried(*[1.0] * n), n) for n in range(3)])
    assert len(set(draws.tolist())) == 3 * COUNT
    assert draws.min() > 0
    assert draws.max() <= 1
    assert 0.4 < draws.mean() < 0.6


def test_then_a_tenth_of_the_best_is_drawn_anew() -> None:
    assert changed(tried(3.0, 1.0, 2.0), start=1) == 4
    # One that is better takes its place; one that failed does not.
    assert changed(tried(3.0, 1.0, 2.0, 0.5), start=3) == 4
    assert changed(tried(3.0, 1.0, 2.0, np.inf), start=1) == 4


@pytest.mark.parametrize(
    ("later", "expected"),
    [([2, 2], 3), ([2, 0.5, 2], 4), ([2, 0.5, 2, 2], 3), ([2] * 6, 1), ([2] * 20, 1)],
)
def test_without_gain_ever_fewer_change(later: list[float], expected: int) -> None:
    start = 1 if 0.5 not in later else 3 + later.index(0.5)
    assert changed(tried(3.0, 1.0, 2.0, *later), start) == expected


def test_a_repeated_plan_is_left_by_changing_more() -> None:
    assert changed(tried(3.0, 1.0, 2.0), start=1, more=5) == 9
    assert changed(tried(3.0, 1.0, 2.0), start=1, more=100) == COUNT - 1


def test_it_comes_down_to_the_best_of_a_smooth_loss() -> None:
    target = np.random.default_rng(9).random(COUNT)
    history: list[tuple[Array, float]] = []
    for number in range(600):
        own = sampled(history, number, draws=20, failures=50)
        history.append((own, float(((own - target) ** 2).sum())))
    losses = [loss for _, loss in history]
    assert min(losses) < 0.25 * min(losses[:20])


def test_rates_searches_with_it() -> None:
    space = chain([16, 20, 24, 18])
    strategy = built(
        Rates,
        space,
        budget_of(space, macs=0.5),
        knowledge_of(space, 5),
        sampler="spdy",
        unprobed=1,
        startup=12,
        failures=4,
    )
    told = []
    for generation in range(12):
        numbered = enumerate(strategy.ask(), len(told))
        # The loss is group 2's alone.
        trials = [
            outcome(space, p, i, generation, 0.1 + (1 - float(p.mask["g2"].mean())) ** 2)
            for i, p in numbered
        ]
        strategy.tell(trials)
        told += trials
    assert [t.genome["operator"] for t in told] == ["uniform", "equal"] + ["spdy"] * 46
    weights = [t.genome["weights"] for t in told[2:]]
    assert all(max(own.values()) <= 0 for own in weights)
    kept = [float(t.mask["g2"].mean()) for t in told]
    assert max(kept[14:]) > max(kept[:14]) + 0.05
    # What is tried is near the best so far, and not anything.
    assert np.std(kept[-12:]) < np.std(kept[2:14])
