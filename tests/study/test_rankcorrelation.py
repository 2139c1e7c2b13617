"""The rank correlation: against scipy's, its interval by hand, and what it refuses to say."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from evosearch.study.rankcorrelation import RankCorrelation


@pytest.mark.parametrize("count", [4, 9, 24])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_scipys_also_with_ties(count: int, seed: int) -> None:
    rng = np.random.default_rng([seed, count])
    first = rng.normal(size=count)
    second = np.round(first + rng.normal(size=count), 0)
    found = RankCorrelation.between(first.tolist(), second.tolist())
    assert found is not None
    assert found.rho == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert found.count == count


def test_by_hand() -> None:
    """Ranks 0 1 2 3 against 1 0 2 3: 1 - 6 x 2 / (4 x 15) = 0.8."""
    found = RankCorrelation.between([0.1, 0.2, 0.3, 0.9], [5.0, 4.0, 6.0, 7.0])
    assert found is not None
    assert found.rho == pytest.approx(0.8)
    half = 1.959963984540054 * math.sqrt(1 + 0.64 / 2)
    middle = 0.5 * math.log(1.8 / 0.2)
    assert found.interval == pytest.approx((math.tanh(middle - half), math.tanh(middle + half)))
    assert str(found).startswith("0.80 (95 % interval -0.82 to 1.00, 4 networks)")


def test_few_networks_in_order_say_little() -> None:
    """One exchange of neighbours among four takes 0.2; half of it keeps the interval open."""
    for values, sign in (([1, 2, 3, 4], 1), ([4, 3, 2, 1], -1)):
        found = RankCorrelation.between([1, 2, 3, 4], values)
        assert found is not None
        assert found.rho == pytest.approx(sign)
        low, high = sorted(sign * end for end in found.interval)
        assert low == pytest.approx(
            math.tanh(math.atanh(0.9) - 1.959963984540054 * math.sqrt(1.405))
        )
        assert low < 0 < high < 1
    three = RankCorrelation.between([1, 2, 3], [1, 2, 3])
    assert three is not None
    assert three.interval == (-1, 1)


def test_more_networks_narrow_it() -> None:
    widths = []
    for count in (4, 6, 12, 24, 100):
        low, high = RankCorrelation(rho=0.7, count=count).interval
        assert low < 0.7 < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([], [])],
)
def test_what_has_no_order_has_no_correlation(first: list[float], second: list[float]) -> None:
    assert RankCorrelation.between(first, second) is None


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Over normal pairs of a known rank correlation, 6/pi asin(r/2)."""
    rng, count, correlation = np.random.default_rng(0), 24, 0.7
    truth = 6 / math.pi * math.asin(correlation / 2)
    held = 0
    for _ in range(1000):
        first, noise = rng.normal(size=(2, count))
        second = correlation * first + math.sqrt(1 - correlation**2) * noise
        found = RankCorrelation.between(first.tolist(), second.tolist())
        assert found is not None
        low, high = found.interval
        held += low <= truth <= high
    assert 925 <= held <= 975
