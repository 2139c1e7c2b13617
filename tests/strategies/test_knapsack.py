"""The multiple-choice knapsack against enumeration."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.strategies.knapsack import knapsack


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 30))
def test_is_exact(seed: int, groups: int, options: int, capacity: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 20, (groups, options))
    sizes[:, 0] = 0  # something always fits
    errors = rng.random((groups, options))
    errors[rng.random(errors.shape) < 0.2] = np.inf
    errors[:, 0] = 1.0
    rows = np.arange(groups)
    choices = knapsack(sizes, errors, capacity)
    assert sizes[rows, choices].sum() <= capacity
    least = min(
        errors[rows, list(plan)].sum()
        for plan in product(range(options), repeat=groups)
        if sizes[rows, list(plan)].sum() <= capacity
    )
    assert errors[rows, choices].sum() <= least + 1e-12


def test_by_hand() -> None:
    sizes = np.array([[0, 2, 5], [0, 3, 4]])
    errors = np.array([[9.0, 4.0, 0.0], [7.0, 3.0, 1.0]])
    assert knapsack(sizes, errors, 6).tolist() == [1, 2]
    assert knapsack(sizes, errors, 9).tolist() == [2, 2]
    assert knapsack(sizes, errors, 1).tolist() == [0, 0]
