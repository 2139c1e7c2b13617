"""Uniform plans: the largest common keep ratio that fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.cost import Bound, Budget
from evosearch.errors import InfeasibleBudget
from evosearch.space import SearchSpace, Widths
from evosearch.strategies.baselines import uniform_mask, uniform_widths
from tests.strategies.problems import budget_of, chain


def at_ratio(space: SearchSpace, ratio: float) -> Widths:
    widths = []
    for group in space.groups:
        fitting = [w for w in group.legal_widths() if w <= ratio * group.size + 1e-9]
        widths.append(max(fitting, default=group.legal_widths()[0]))
    return np.array(widths)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.floats(0, 1), st.booleans())
def test_is_the_largest_ratio_that_fits(
    seed: int, groups: int, multiple_of: int, share: float, both: bool
) -> None:
    rng = np.random.default_rng(seed)
    space = chain(rng.integers(2, 30, groups), multiple_of=multiple_of)
    budget = budget_of(space, macs=share, **({"params": 0.5} if both else {}))
    ratios = np.unique([w / g.size for g in space.groups for w in g.legal_widths()])
    plans = np.stack([at_ratio(space, ratio) for ratio in ratios])
    fitting = plans[space.fits(plans, budget)]
    expected = fitting[-1] if len(fitting) else space.least_widths
    np.testing.assert_array_equal(uniform_widths(space, budget), expected)


def test_by_hand() -> None:
    # MACs of widths a, b: 576 a + 144 ab + 36 b + 36 b^2 + 50; all channels: 32882, 30 %: 9864.
    # (4, 8) costs 9554, and (4, 9), the next ratio, 10778.
    space = chain([8, 16])
    assert space.base_cost.macs == 32882
    assert uniform_widths(space, budget_of(space, macs=1.0)).tolist() == [8, 16]
    assert uniform_widths(space, budget_of(space, macs=0.3)).tolist() == [4, 8]


def test_mask_drops_the_lowest_scores() -> None:
    space = chain([4, 4])
    scores = {"g0": np.array([3.0, 1.0, 4.0, 2.0]), "g1": np.array([1.0, 2.0, 2.0, 2.0])}
    mask = uniform_mask(space, budget_of(space, macs=0.4), scores)
    assert mask["g0"].tolist() == [True, False, True, False]
    assert mask["g1"].tolist() == [False, True, True, False]  # of equal scores the earlier stay


def test_an_unreachable_budget_is_refused() -> None:
    space = chain([8, 8], min_keep=4)
    with pytest.raises(InfeasibleBudget):
        uniform_widths(space, Budget(macs=Bound(low=1, high=space.smallest_cost.macs - 1)))
