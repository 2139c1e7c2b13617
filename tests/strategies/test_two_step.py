"""The two-step error against its definition, and the channels that it picks."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.errors import InputError
from evosearch.space.costform import CostTerm, Monomial
from evosearch.space.mask import ChannelGroup
from evosearch.space.space import SearchSpace
from evosearch.strategies.two_step import CURVE_POINTS, TwoStep, descend_by_swaps, flip_deltas
from tests.strategies.problems import chain, correlated_gram, greedy_removal, wishart_gram

HAND = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 1.0]])


def single(size: int, **rules: int) -> SearchSpace:
    term = CostTerm(name="conv", macs=(Monomial(1, ("g",)),))
    return SearchSpace(groups=(ChannelGroup("g", size, **rules),), terms=(term,))


def two_step_of(gram: np.ndarray, **rules: int) -> TwoStep:
    return TwoStep(single(len(gram), **rules), {("g", "g"): gram})


def test_error_by_hand() -> None:
    two_step = two_step_of(HAND)
    kept = [[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    # dropping {}, {0}, {0, 1}, {1, 2}, {0, 1, 2}: 0, 2, 2+3+2, 3+1-2, 6+2-2
    expected = [0, 2, 7, 2, 6]
    np.testing.assert_allclose(two_step.group_errors("g", np.array(kept, dtype=bool)), expected)
    np.testing.assert_allclose(two_step.errors({"g": np.array(kept, dtype=bool)}), expected)


def test_total_error_holds_cross_blocks_in_both_orders() -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(9, 20))
    whole = factor @ factor.T
    space = chain([4, 2, 3])
    cuts = {"g0": slice(0, 4), "g1": slice(4, 6), "g2": slice(6, 9)}
    pairs = [("g0", "g0"), ("g1", "g1"), ("g2", "g2"), ("g0", "g1"), ("g2", "g0"), ("g1", "g2")]
    two_step = TwoStep(space, {(a, b): whole[cuts[a], cuts[b]] for a, b in pairs})
    keep = rng.random((50, 9)) < 0.5
    dropped = 1.0 - keep
    expected = [row @ whole @ row for row in dropped]
    bits = {name: keep[:, cut] for name, cut in cuts.items()}
    np.testing.assert_allclose(two_step.errors(bits), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_flip_deltas_are_differences_of_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gram = correlated_gram(rng, 12)
    pruned = (rng.random(12) < 0.5).astype(float)
    deltas = flip_deltas(gram, pruned, gram @ pruned)
    for channel in range(12):
        flipped = pruned.copy()
        flipped[channel] = 1 - flipped[channel]
        difference = flipped @ gram @ flipped - pruned @ gram @ pruned
        assert deltas[channel] == pytest.approx(difference, abs=1e-14)


@pytest.mark.parametrize("make", [correlated_gram, wishart_gram])
def test_removal_order_is_greedy_elimination(make) -> None:
    gram = make(np.random.default_rng(3), 14)
    order = two_step_of(gram).removal_order("g")
    assert sorted(order) == list(range(14))
    for width in range(1, 14):
        expected = np.flatnonzero(~greedy_removal(gram, width))
        assert set(order[: 14 - width]) == set(expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 20), st.data())
def test_subset_has_its_width_and_no_swap_improves_it(
    seed: int, size: int, data: st.DataObject
) -> None:
    gram = wishart_gram(np.random.default_rng(seed), size)
    width = data.draw(st.integers(1, size))
    two_step = two_step_of(gram)
    keep = two_step.subset("g", width)
    error = two_step.group_errors("g", keep[None])[0]
    assert keep.sum() == width
    assert error <= two_step.group_errors("g", greedy_removal(gram, width)[None])[0] + 1e-12
    for drop in np.flatnonzero(keep):
        for restore in np.flatnonzero(~keep):
            swapped = keep.copy()
            swapped[drop], swapped[restore] = False, True
            assert two_step.group_errors("g", swapped[None])[0] >= error - 1e-11


def test_swaps_improve_on_greedy_somewhere() -> None:
    gains = []
    for seed in range(10):
        gram = wishart_gram(np.random.default_rng(seed), 24)
        greedy = (~greedy_removal(gram, 6)).astype(float)
        swapped = descend_by_swaps(gram, greedy)
        gains.append(greedy @ gram @ greedy - swapped @ gram @ swapped)
    assert min(gains) >= 0
    assert max(gains) > 0.01


def test_subset_finds_the_optimum_of_most_small_groups() -> None:
    found = 0
    for seed in range(20):
        gram = correlated_gram(np.random.default_rng(seed), 10)
        two_step = two_step_of(gram)
        pruned = np.zeros((252, 10))
        for row, drop in zip(pruned, combinations(range(10), 5), strict=True):
            row[list(drop)] = 1
        optimum = np.einsum("ij,jk,ik->i", pruned, gram, pruned).min()
        error = two_step.group_errors("g", two_step.subset("g", 5)[None])[0]
        assert error >= optimum - 1e-12
        found += error <= optimum + 1e-12
    assert found >= 15


def test_curve_is_the_error_of_subsets_at_legal_widths() -> None:
    gram = correlated_gram(np.random.default_rng(1), 20)
    two_step = two_step_of(gram, multiple_of=3, min_keep=4)
    curve = two_step.curve("g")
    assert curve.widths.tolist() == [6, 9, 12, 15, 18, 20]
    assert curve.errors[-1] == 0
    for width, error in zip(curve.widths, curve.errors, strict=True):
        own = two_step.group_errors("g", two_step.subset("g", int(width))[None])[0]
        assert error <= own + 1e-15


def test_curve_never_rises_where_dropped_channels_cancel() -> None:
    # Dropping both channels costs nothing, dropping one costs 1.
    gram = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
    curve = two_step_of(gram).curve("g")
    assert curve.errors.tolist() == [0, 0, 0]


def test_curve_of_a_wide_group_is_thinned_but_keeps_both_ends() -> None:
    curve = two_step_of(correlated_gram(np.random.default_rng(1), 200)).curve("g")
    assert len(curve.widths) == CURVE_POINTS
    assert (curve.widths[0], curve.widths[-1]) == (1, 200)
    assert np.all(np.diff(curve.widths) > 0)
    assert np.all(np.diff(curve.errors) <= 0)


def test_mask_keeps_the_subsets() -> None:
    rng = np.random.default_rng(2)
    space = chain([5, 6, 7])
    two_step = TwoStep(space, {(g.name, g.name): wishart_gram(rng, g.size) for g in space.groups})
    mask = two_step.mask(np.array([2, 6, 3]))
    assert mask.widths == {"g0": 2, "g1": 6, "g2": 3}
    np.testing.assert_array_equal(mask["g2"], two_step.subset("g2", 3))


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        ({}, "no Gram matrix of group 'g'"),
        ({("g", "g"): np.eye(4)}, r"expects the shape \(3, 3\), the knowledge holds \(4, 4\)"),
        ({("g", "g"): np.eye(3), ("g", "h"): np.eye(3)}, "'g' and 'h'"),
    ],
)
def test_knowledge_of_another_space_is_refused(gram, message) -> None:
    with pytest.raises(InputError, match=message):
        TwoStep(single(3), gram)


def test_a_cross_block_in_both_orders_is_refused() -> None:
    rng = np.random.default_rng(0)
    gram = {(n, n): wishart_gram(rng, 4) for n in ("g0", "g1")}
    gram |= {("g0", "g1"): np.eye(4), ("g1", "g0"): np.eye(4)}
    with pytest.raises(InputError, match="both orders"):
        TwoStep(chain([4, 4]), gram)


def test_an_impossible_width_is_refused() -> None:
    with pytest.raises(InputError, match="has 3 channels; cannot keep 4"):
        two_step_of(HAND).subset("g", 4)
