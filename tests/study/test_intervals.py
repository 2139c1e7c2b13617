"""Intervals of shares against published values, closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.errors import InputError
from evosearch.study.intervals import (
    drop_bound,
    images_to_certify,
    least_certifiable_drop,
    wilson_interval,
)
from evosearch.study.scores import Score

Z = 1.6448536269514722


def paired(count: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns outcomes of two networks: so many images lost by the second, so many gained."""
    before, after = np.ones(count), np.ones(count)
    after[:lost] = 0
    before[lost : lost + gained] = 0
    return before, after


def test_wilson_by_hand() -> None:
    # 81 of 263: Newcombe 1998, table I, method 3.
    low, high = wilson_interval(81 / 263, 263)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    # 0 of 20, likewise.
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_perfect_share_has_a_width() -> None:
    low, high = wilson_interval(1.0, 350)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(1 / (1 + 1.959963984540054**2 / 350))


def test_no_image_that_differs_gives_the_closed_form() -> None:
    for count in (10, 268, 5000):
        assert least_certifiable_drop(count) == pytest.approx(Z**2 / (count + Z**2), rel=1e-6)


def test_a_point_needs_268_images() -> None:
    assert least_certifiable_drop(267) > 0.01 > least_certifiable_drop(268)


@pytest.mark.parametrize(("drop", "count"), [(0.01, 268), (0.005, 539), (0.5, 3)])
def test_how_many_images_a_drop_takes(drop: float, count: int) -> None:
    assert images_to_certify(drop) == count
    assert least_certifiable_drop(count) <= drop < least_certifiable_drop(count - 1)


def test_tango_by_his_example() -> None:
    # Tango 1998, crossover data of 44 patients: 1 and 0 discordant; two-sided 95 % upper 0.1181.
    before, after = paired(44, 1, 0)
    assert drop_bound(before, after, 0.975) == pytest.approx(0.1181, abs=5e-4)


def test_many_images_agree_with_the_normal_bound() -> None:
    before, after = paired(100_000, 3_000, 2_000)
    change = before - after
    normal = change.mean() + Z * change.std() / math.sqrt(len(change))
    assert drop_bound(before, after) == pytest.approx(normal, rel=1e-2)


@settings(deadline=None, max_examples=200)
@given(st.integers(5, 500), st.floats(0, 0.3), st.floats(0, 0.3), st.integers(0, 10**6))
def test_the_bound_is_above_what_was_seen(count: int, p: float, q: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.random(count)
    before, after = 1.0 - (drawn < q), 1.0 - ((drawn >= q) & (drawn < q + p))
    bound = drop_bound(before, after)
    assert (before - after).mean() <= bound <= 1
    # A metric between the outcomes cannot be less sure.
    assert drop_bound(before / 2, after / 2) >= (before - after).mean() / 2


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.0), (0.02, 0.01), (0.004, 0.004)])
def test_the_bound_holds_as_often_as_it_says(lost: float, gained: float) -> None:
    rng = np.random.default_rng(5)
    count, held = 300, 0
    for _ in range(2000):
        drawn = rng.random(count)
        before, after = 1.0 - (drawn < gained), 1.0 - ((drawn >= gained) & (drawn < gained + lost))
        held += drop_bound(before, after) >= lost - gained
    assert held / 2000 > 0.93


def test_no_images() -> None:
    with pytest.raises(InputError):
        wilson_interval(0.5, 0)
    with pytest.raises(InputError):
        drop_bound(np.zeros(0), np.zeros(0))


def test_an_accuracy_of_one_is_shown_with_its_interval() -> None:
    score = Score(loss=0.0, loss_se=0.0, accuracy=1.0, accuracy_se=0.0, images=350)
    assert score.accuracy_text == "100.00 (98.9 to 100.0)"
