"""NSGA-II against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.strategies.selection import nsga2


def ranks(points: np.ndarray) -> np.ndarray:
    """Peels off fronts, from the definition of dominance."""
    rank = np.full(len(points), -1)
    level = 0
    while (rank < 0).any():
        left = np.flatnonzero(rank < 0)
        rest = points[left]
        worse = (rest[:, None] >= rest[None]).all(-1) & (rest[:, None] > rest[None]).any(-1)
        rank[left[~worse.any(axis=1)]] = level
        level += 1
    return rank


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 3), st.integers(0, 45))
def test_better_fronts_go_first(seed: int, rows: int, objectives: int, count: int) -> None:
    points = np.unique(
        np.random.default_rng(seed).integers(0, 9, (rows, objectives)), axis=0
    ).astype(float)
    chosen = nsga2(points, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(points))
    rank = ranks(points)
    left = np.setdiff1d(np.arange(len(points)), chosen)
    if len(left) and count:
        assert rank[chosen].max() <= rank[left].min()


def test_ends_and_lonely_points_go_first() -> None:
    points = np.array([[0.0, 10.0], [1, 9], [1.1, 8.9], [1.2, 8.8], [5, 5], [10, 0]])
    assert set(nsga2(points, 3).tolist()) == {0, 4, 5}


def test_equal_points_come_after_all_distinct_ones() -> None:
    points = np.array([[1.0, 1.0], [1.0, 1.0], [5.0, 5.0], [1.0, 1.0]])
    assert nsga2(points, 4).tolist() == [0, 2, 1, 3]
    assert nsga2(points, 2).tolist() == [0, 2]


def test_infeasible_points_come_last_least_violation_first() -> None:
    points = np.array([[0.0, 0.0], [3.0, 3.0], [0.0, 1.0], [3.0, 3.0]])
    violations = np.array([0.5, 0.0, 0.1, 0.0])
    assert nsga2(points, 4, violations).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        nsga2(np.array([[0.0, 1.0], [bad, 0.0]]), 1)


def test_nothing_to_choose_from() -> None:
    assert nsga2(np.zeros((0, 2)), 3).tolist() == []
    assert nsga2(np.ones((2, 2)), 0).tolist() == []
