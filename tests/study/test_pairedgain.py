"""The paired gain: by hand, the same from both sides, and never surer than the images allow."""

import numpy as np
import pytest

from evosearch.study.dropbound import drop_bound, least_certifiable_drop
from evosearch.study.pairedgain import PairedGain


def pair(count: int, gained: int, lost: int) -> tuple[np.ndarray, np.ndarray]:
    other, first = np.ones(count), np.ones(count)
    other[:gained] = 0
    first[gained : gained + lost] = 0
    return other, first


def test_by_hand() -> None:
    gain = PairedGain.of(*pair(200, gained=12, lost=2))
    assert (gain.images, gain.gained, gain.lost) == (200, 12, 2)
    assert gain.mean == pytest.approx(0.05)
    assert gain.low < 0.05 < gain.high
    assert gain.low == -drop_bound(*pair(200, gained=12, lost=2), 0.975)
    assert gain.is_shown
    assert str(gain).startswith("+5.00 points (95 % interval +")
    assert str(gain).endswith("on 200 confirmation images, 12 gained and 2 lost")


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (5, 0), (9, 4)])
def test_the_other_way_round_it_is_a_loss(gained: int, lost: int) -> None:
    other, first = pair(100, gained, lost)
    one, two = PairedGain.of(other, first), PairedGain.of(first, other)
    assert (one.low, one.high) == (-two.high, -two.low)
    assert one.mean == -two.mean


def test_networks_that_never_differ_are_not_shown_to_be_equal() -> None:
    gain = PairedGain.of(*pair(300, 0, 0))
    least = least_certifiable_drop(300, 0.975)
    assert (gain.low, gain.high) == (-least, least)
    assert not gain.is_shown
