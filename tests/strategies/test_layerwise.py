"""The strategy `layerwise`: channels by evolution, rates by elitist evolution."""

import numpy as np
import pytest

from evosearch.seeding import Stream, generator
from evosearch.strategies.genetic_layer import evolve
from evosearch.strategies.layerwise import Layerwise, LayerwiseConfig
from evosearch.study.trial import Trial
from tests.strategies.problems import (
    budget_of,
    built,
    chain,
    greedy_removal,
    knowledge_of,
    outcome,
)

SPACE = chain([10, 14, 12])
KNOWLEDGE = knowledge_of(SPACE, 3)


def build(seed: int = 0, **settings: object) -> Layerwise:
    budget = budget_of(SPACE, macs=(0.3, 0.7))
    return built(Layerwise, SPACE, budget, KNOWLEDGE, seed=seed, **settings)


def tell(strategy: Layerwise, losses: list[float | None], first: int = 0) -> list[Trial]:
    pairs = zip(strategy.ask(), losses, strict=True)
    trials = [outcome(SPACE, p, i, 0, loss) for i, (p, loss) in enumerate(pairs, first)]
    strategy.tell(trials)
    return trials


def test_first_plans_are_the_measured_ones() -> None:
    proposals = build(round_size=6).ask()
    assert [p.genome["operator"] for p in proposals] == ["measured"] * 5 + ["mutation"]
    assert [p.genome["budget"] for p in proposals] == [0, 0.25, 0.5, 0.75, 1, 0]
    assert all(set(p.genome["factors"].values()) == {0.0} for p in proposals[:5])
    widths = [sum(p.mask.widths.values()) for p in proposals[:5]]
    assert widths == sorted(widths)


def test_channels_come_from_the_groups_evolutions() -> None:
    strategy = build(seed=4)
    mask = strategy.ask()[0].mask
    for name, bits in mask.items():
        width = int(bits.sum())
        gram = KNOWLEDGE.gram[name, name]
        rng = generator(4, Stream.GENETIC, name, width)
        np.testing.assert_array_equal(
            bits, evolve(gram, width, LayerwiseConfig().genetic, rng).keep
        )
        greedy = 1.0 - greedy_removal(gram, width)
        assert (1.0 - bits) @ gram @ (1.0 - bits) <= greedy @ gram @ greedy + 1e-12


def test_the_best_genome_so_far_is_the_parent() -> None:
    strategy = build(round_size=5, mutation_scale=0.1)
    tell(strategy, [0.5, 0.4, 0.3, 0.2, 0.1])
    # Relative to the measured plan of its own budget, the fourth gains most.
    tell(strategy, [0.45, 0.38, 0.31, 0.11, 0.09], first=5)
    parents = strategy.ask()
    assert {p.genome["parent"] for p in parents} == {8}
    factors = strategy._told[8].genome["factors"]
    for proposal in parents:
        distances = [abs(proposal.genome["factors"][g] - factors[g]) for g in factors]
        assert 0 < max(distances) < 0.6
    # Elitism: a worse round changes nothing.
    tell(strategy, [0.6, 0.5, 0.4, 0.3, 0.2], first=10)
    assert {p.genome["parent"] for p in strategy.ask()} == {8}


def test_a_budget_whose_measured_plan_failed_is_judged_by_its_median() -> None:
    strategy = build(round_size=5)
    tell(strategy, [None, 0.4, 0.3, 0.2, 0.1])
    tell(strategy, [0.9, 0.41, 0.31, 0.21, 0.11], first=5)
    tell(strategy, [0.3, 0.41, 0.31, 0.21, 0.11], first=10)
    assert {p.genome["parent"] for p in strategy.ask()} == {10}


@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_mutation_scale_counts(scale: float) -> None:
    strategy = build(round_size=40, mutation_scale=scale)
    steps = [x for p in strategy.ask()[5:] for x in p.genome["factors"].values() if x != 0]
    assert np.std(steps) == pytest.approx(scale, rel=0.35)
