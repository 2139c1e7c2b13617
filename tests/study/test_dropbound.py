"""The bound of a paired drop against closed forms, plain enumeration, and its exact coverage."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from evosearch.errors import InputError
from evosearch.study import dropbound
from evosearch.study.dropbound import (
    UNLIKELY,
    drop_bound,
    images_to_certify,
    least_certifiable_drop,
)
from tests.study.enumeration import bound_of, error_of, paired

Z = 1.6448536269514722
ERROR = 0.05 - UNLIKELY


@pytest.mark.parametrize("count", [1, 10, 299, 5000])
def test_no_image_that_differs_gives_the_closed_form(count: int) -> None:
    least = least_certifiable_drop(count)
    assert least == pytest.approx(1 - ERROR ** (1 / count), abs=1e-9)
    assert (1 - least) ** count <= 0.05  # what such a bound has to be, whatever it is called


def test_a_point_needs_299_images() -> None:
    assert 0.99**299 < 0.05 < 0.99**298
    assert least_certifiable_drop(299) < 0.01 < least_certifiable_drop(298)


@pytest.mark.parametrize(("drop", "count"), [(0.01, 299), (0.005, 598), (0.5, 5), (1.0, 1)])
def test_how_many_images_a_drop_takes(drop: float, count: int) -> None:
    assert images_to_certify(drop) == count
    assert least_certifiable_drop(count) <= drop
    if count > 1:
        assert drop < least_certifiable_drop(count - 1)


@pytest.mark.parametrize(("count", "lost"), [(44, 1), (300, 3), (300, 299), (2500, 100)])
def test_where_nothing_is_gained_it_is_that_of_one_share(count: int, lost: int) -> None:
    # Clopper and Pearson 1934.
    exact, wider = stats.beta.ppf([0.95, 1 - ERROR], lost + 1, count - lost)
    assert exact <= bound_of(count, lost, 0)
    assert bound_of(count, lost, 0) == pytest.approx(wider, rel=1e-6)


def test_the_order_of_outcomes_by_tangos_example() -> None:
    # Tango 1998, crossover data of 44 patients: 1 and 0 discordant; two-sided 95 % upper 0.1181.
    found = dropbound._score_bound(44, 1, 0, stats.norm.ppf(0.975))
    assert found == pytest.approx(0.1181, abs=5e-4)


def plain_score(drop: float, count: int, lost: int, gained: int) -> float:
    """Returns an outcome's score with the likeliest rates that have a drop, found by search."""

    def unlikely(gain: float) -> float:
        rates = gain + drop, gain, 1 - 2 * gain - drop
        return -float(sum(n * math.log(r) for n, r in zip(numbers, rates, strict=True) if n))

    numbers = lost, gained, count - lost - gained
    ends = max(0.0, -drop) + 1e-12, (1 - drop) / 2 - 1e-12
    options = {"xatol": 1e-12}
    gain = optimize.minimize_scalar(unlikely, bounds=ends, method="bounded", options=options).x
    return float((lost - gained - count * drop) / math.sqrt(count * (2 * gain + drop - drop**2)))


@pytest.mark.parametrize(("count", "lost", "gained"), [(12, 1, 0), (16, 2, 3), (20, 3, 2)])
def test_the_bound_by_plain_enumeration(count: int, lost: int, gained: int) -> None:
    """Outcomes that look no worse are as likely as the error, at the bound, and nowhere more."""
    limit = optimize.brentq(lambda d: plain_score(d, count, lost, gained) + Z, -0.9, 0.99)
    alike = [
        (b, c)
        for b in range(count + 1)
        for c in range(count + 1 - b)
        if plain_score(limit, count, b, c) <= -Z + 1e-5
    ]
    rest = UNLIKELY / 2
    low = stats.beta.ppf(rest, gained, count - gained + 1) if gained else 0.0
    high = stats.beta.ppf(1 - rest, gained + 1, count - gained)

    def most_likely(drop: float) -> float:
        gains = np.linspace(low, min(high, (1 - drop) / 2), 400)[:, None]
        b, c = np.array(alike).T
        ways = [math.comb(count, i) * math.comb(count - i, j) for i, j in alike]
        chances = ways * (gains + drop) ** b * gains**c
        chances *= np.clip(1 - 2 * gains - drop, 0, 1) ** (count - b - c)
        return float(chances.sum(axis=1).max())

    bound = bound_of(count, lost, gained)
    assert most_likely(bound) == pytest.approx(ERROR, rel=5e-3)
    assert most_likely(bound + 0.005) < ERROR < most_likely(bound - 0.005)


# Drop and share of gained images, both true; and the least error that so exact a bound has there.
FEW = [
    (268, 0.01, 0.0, 0.0),
    (299, 0.01, 0.0, 0.049),
    (299, 0.012, 0.004, 0.04),
    (539, 0.005, 0.0, 0.0),
    (539, 0.01, 0.001, 0.03),
    (1000, 0.003, 0.0, 0.049),
    (1000, 0.005, 0.0005, 0.03),
]
MANY = [
    (count, drop, gain)
    for count in (268, 299, 539, 1000)
    for drop in (0.0, 0.003, 0.005, 0.01, 0.012, 0.02)
    for gain in (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03)
]


@pytest.mark.parametrize(("count", "drop", "gain", "least"), FEW)
def test_the_bound_holds_as_often_as_it_says(
    count: int, drop: float, gain: float, least: float
) -> None:
    assert least <= error_of(count, drop, gain) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("count", [268, 299, 539, 1000])
def test_the_bound_holds_at_every_rate(count: int) -> None:
    errors = [error_of(*rates) for rates in MANY if rates[0] == count]
    assert 0.045 < max(errors) <= 0.05


def test_many_images_agree_with_the_normal_bound() -> None:
    before, after = paired(100_000, 3_000, 2_000)
    change = before - after
    normal = change.mean() + Z * change.std() / math.sqrt(len(change))
    assert drop_bound(before, after) == pytest.approx(normal, rel=1e-2)


def test_the_more_is_lost_the_larger_it_is() -> None:
    bounds = [bound_of(60, lost, 2) for lost in range(0, 59, 4)]
    assert bounds == sorted(bounds)
    assert len(set(bounds)) == len(bounds)
    assert bound_of(60, 60, 0) == 1


def test_what_is_no_whole_image_is_rounded_to_the_worse() -> None:
    before, after = np.full(50, 0.9), np.full(50, 0.9)
    after[:4] = 0.3  # 2.4 images are lost in sum, and 0.6 gained
    before[4:10] = 0.8
    assert drop_bound(before, after) == bound_of(50, 3, 0)


def test_no_images() -> None:
    with pytest.raises(InputError):
        drop_bound(np.zeros(0), np.zeros(0))
