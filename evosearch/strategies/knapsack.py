"""The multiple-choice knapsack: one option per group, least total error within a capacity."""

import numpy as np
from numpy.typing import NDArray

from evosearch.space.knowledge import Array

Choices = NDArray[np.int64]


def knapsack(sizes: NDArray[np.int64], errors: Array, capacity: int) -> Choices:
    """Solves the multiple-choice knapsack exactly, by dynamic programming over the capacity.

    Args:
        sizes: of every option, not negative, `(groups, options)`; some choice of one option per
            group must fit. A size over the capacity is one that never fits.
        errors: of every option, `(groups, options)`; infinite where there is no such option.
        capacity: limit of the total size.

    Returns:
        The option of each group, `(groups,)`.
    """
    room = np.arange(capacity + 1)
    # A wall of infinities below zero: what does not fit is never best.
    wall = np.full(capacity + 1, np.inf)
    sizes = np.minimum(sizes, capacity + 1)
    least, best = np.zeros(capacity + 1), []
    for own_sizes, own_errors in zip(sizes, errors, strict=True):
        there = np.isfinite(own_errors)
        reached = room + (capacity + 1 - own_sizes[there])[:, None]
        totals = np.concatenate([wall, least])[reached] + own_errors[there][:, None]
        options = np.argmin(totals, axis=0)
        least = totals[options, room]
        best.append(np.flatnonzero(there)[options])
    choices = np.zeros(len(sizes), dtype=np.int64)
    left = capacity
    for group in reversed(range(len(sizes))):
        choices[group] = best[group][left]
        left -= int(sizes[group, choices[group]])
    return choices
