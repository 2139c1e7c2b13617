"""Intervals of shares against published values."""

import pytest

from evosearch.errors import InputError
from evosearch.study.intervals import wilson_interval
from evosearch.study.scores import Score


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


def test_no_images() -> None:
    with pytest.raises(InputError):
        wilson_interval(0.5, 0)


def test_an_accuracy_of_one_is_shown_with_its_interval() -> None:
    score = Score(loss=0.0, loss_se=0.0, accuracy=1.0, accuracy_se=0.0, images=350)
    assert score.accuracy_text == "100.00 (98.9 to 100.0)"
