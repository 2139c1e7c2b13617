"""Exact probabilities of what two networks get right on the same images, and of wrong bounds."""

import math
from functools import cache

import numpy as np
from scipy import stats

from evosearch.study.dropbound import drop_bound

TAIL = 1e-6
"""Probability of the numbers of lost or gained images that are left out at each end."""


def paired(count: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns outcomes of two networks: so many images lost by the second, so many gained."""
    before, after = np.ones(count), np.ones(count)
    after[:lost] = 0
    before[lost : lost + gained] = 0
    return before, after


@cache
def bound_of(count: int, lost: int, gained: int) -> float:
    return drop_bound(*paired(count, lost, gained))


def least_lost(count: int, gained: int, above: float) -> int:
    """Returns the fewest lost images whose bound is above a drop; it rises with them."""
    low, high = -1, math.ceil(count * above) + gained + 1
    assert bound_of(count, high, gained) > above
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if bound_of(count, half, gained) > above else (half, high)
    return high


def gained_numbers(count: int, rate: float) -> list[tuple[int, float]]:
    """Returns the numbers of gained images that occur at a true rate, with their probabilities."""
    least, most = stats.binom.ppf([TAIL, 1 - TAIL], count, rate)
    numbers = range(int(max(0, least)), int(most) + 1)
    return [(number, float(stats.binom.pmf(number, count, rate))) for number in numbers]


def fewer_lost(count: int, gained: int, lost: int, loss: float, gain: float) -> float:
    """Returns the probability of fewer lost images, given the gained; both rates are true ones."""
    return float(stats.binom.cdf(lost - 1, count - gained, loss / (1 - gain)))


def error_of(count: int, drop: float, gain: float) -> float:
    """Returns how often the bound is under the true drop."""
    below = drop * (1 - 1e-9)  # a bound that is the drop itself holds
    return 2 * TAIL + sum(
        chance * fewer_lost(count, gained, least_lost(count, gained, below), drop + gain, gain)
        for gained, chance in gained_numbers(count, gain)
    )
