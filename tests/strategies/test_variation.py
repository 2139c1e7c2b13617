"""Children: legal, reproducible, correctly scored, and made the way their operator says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.space.costform import CostTerm, Monomial
from evosearch.space.mask import ChannelGroup
from evosearch.space.space import SearchSpace
from evosearch.strategies.fixed_plans import random_mask
from evosearch.strategies.population import Layout, Population
from evosearch.strategies.two_step import TwoStep, child_errors, quadratic_errors
from evosearch.strategies.variation import OPERATORS, Variation
from tests.strategies.problems import budget_of, chain, correlated_gram, knowledge_of


def family(
    space: SearchSpace, seed: int, parents: int = 12, count: int = 300, crossover: float = 0.5
) -> tuple[Layout, Population, Population]:
    """Returns parents and their children."""
    two_step = TwoStep(space, knowledge_of(space, seed).gram)
    layout = Layout(space, two_step)
    rng = np.random.default_rng(seed)
    budget = budget_of(space, macs=(0.2, 0.9))
    masks = [random_mask(space, budget.at(rng.random()), rng) for _ in range(parents)]
    population = layout.population(masks, list(range(parents)))
    variation = Variation(space, two_step, "macs", crossover)
    return layout, population, variation.children(population, count, rng)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(2, 30), min_size=2, max_size=5),
    st.integers(1, 6),
    st.integers(1, 2),
)
def test_children_are_legal_and_scored(
    seed: int, sizes: list[int], multiple_of: int, min_keep: int
) -> None:
    space = chain(sizes, multiple_of=multiple_of, min_keep=min_keep)
    layout, _, children = family(space, seed % 100, count=64)
    for row in range(len(children)):
        space.check(layout.mask(children.bits[row]))
    np.testing.assert_array_equal(children.widths, layout.widths(children.bits))
    np.testing.assert_allclose(children.errors, layout.errors(children.bits), atol=1e-9)


def test_a_single_group_varies_too() -> None:
    space = SearchSpace(
        groups=(ChannelGroup("g", 12),),
        terms=(CostTerm(name="conv", macs=(Monomial(1, ("g",)),)),),
    )
    two_step = TwoStep(space, {("g", "g"): correlated_gram(np.random.default_rng(0), 12)})
    parents = Layout(space, two_step).population([two_step.mask(np.array([6]))])
    children = Variation(space, two_step, "macs", 0.5).children(
        parents, 200, np.random.default_rng(0)
    )
    assert len(set(children.keys())) > 20
    assert len(np.unique(children.widths)) > 3


SPACE = chain([40, 60, 50, 30])


def test_crossover_takes_whole_groups_from_two_parents() -> None:
    layout, parents, children = family(SPACE, 0, crossover=1.0)
    plain = np.flatnonzero(children.operators == OPERATORS.index("cross"))
    mixed = 0
    for row in plain:
        first, second = children.parents[row]
        origins = set()
        for own in layout.slices:
            child = children.bits[row, own]
            equal = [np.array_equal(child, parents.bits[p, own]) for p in (first, second)]
            assert any(equal)
            origins.add(tuple(equal))
        mixed += {(True, False), (False, True)} <= origins
    assert mixed > 0.5 * len(plain)


def copies() -> tuple[Layout, Population, Population, np.ndarray]:
    """Returns a family without crossover, and each child's parent."""
    layout, parents, children = family(SPACE, 1, count=600, crossover=0.0)
    assert (children.parents[:, 1] == -1).all()
    return layout, parents, children, children.parents[:, 0]


def test_swaps_and_refinements_keep_the_widths() -> None:
    _, parents, children, source = copies()
    for name in ("cross", "swap", "refine"):
        rows = children.operators == OPERATORS.index(name)
        np.testing.assert_array_equal(children.widths[rows], parents.widths[source[rows]])
        changed = (children.bits[rows] != parents.bits[source[rows]]).any(axis=1)
        # A group that keeps all its channels has none to exchange.
        assert changed.mean() == 0 if name == "cross" else changed.mean() > 0.7


def test_refinement_beats_a_random_swap() -> None:
    _, parents, children, source = copies()
    gains = (children.errors - parents.errors[source]).sum(axis=1)
    means = {
        name: gains[children.operators == OPERATORS.index(name)].mean()
        for name in ("swap", "refine")
    }
    assert means["refine"] < 0 < means["swap"]


def test_a_switch_about_keeps_the_cost() -> None:
    _, parents, children, source = copies()

    def change(name: str) -> np.ndarray:
        rows = children.operators == OPERATORS.index(name)
        costs = [SPACE.costs(p.widths)["macs"] for p in (children, parents.take(source))]
        return np.abs(costs[0] / costs[1] - 1)[rows]

    assert np.median(change("switch")) < 0.03 < np.median(change("resize"))
    rows = children.operators == OPERATORS.index("switch")
    moved = (children.widths != parents.widths[source])[rows].sum(axis=1)
    assert moved.max() == 2


def test_resizing_moves_groups_one_way() -> None:
    _, parents, children, source = copies()
    rows = children.operators == OPERATORS.index("resize")
    moves = (children.widths - parents.widths[source])[rows]
    assert ((moves >= 0).all(axis=1) | (moves <= 0).all(axis=1)).all()
    assert {1, 2, 3} <= set((moves != 0).sum(axis=1).tolist())


def test_the_generator_decides() -> None:
    first, again, other = (family(SPACE, seed)[2] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.bits, again.bits)
    assert first.keys() != other.keys()


@pytest.mark.parametrize("channels", [1, 40, 128, 300])
def test_scores_from_scratch(channels: int) -> None:
    rng = np.random.default_rng(channels)
    gram = correlated_gram(rng, channels)
    pruned = rng.random((1200, channels)) < 0.5
    expected = [row @ gram @ row for row in pruned.astype(np.float64)]
    np.testing.assert_allclose(quadratic_errors(gram, pruned), expected, rtol=1e-12)


def test_scores_of_children_are_those_from_scratch() -> None:
    rng = np.random.default_rng(0)
    gram = correlated_gram(rng, 50)
    pruned = (rng.random((8, 50)) < 0.5).astype(np.float64)
    source = rng.integers(8, size=200)
    flips = np.stack([rng.permutation(50)[:5] for _ in source])
    flips[rng.random(flips.shape) < 0.3] = -1
    children = pruned[source]
    for child, own in zip(children, flips, strict=True):
        child[own[own >= 0]] = 1 - child[own[own >= 0]]
    errors = quadratic_errors(gram, pruned > 0)
    np.testing.assert_allclose(
        child_errors(gram, pruned, pruned @ gram, errors, source, flips),
        quadratic_errors(gram, children > 0),
        atol=1e-12,
    )
