from collections.abc import Callable

import numpy as np
import pytest
import torch

from evosearch.latency.stopwatch import FEWEST, MOST, compare, median_interval, torch_stopwatch


def fast() -> None: ...
def slow() -> None: ...


def clock(load: Callable[[int], float], slower: float = 4.0) -> Callable[..., float]:
    asked = 0

    def measure(run: Callable[[], None], number: int) -> float:
        nonlocal asked
        asked += 1
        return (1e-2 if run is fast else slower * 1e-2) * load(asked)

    return measure


def test_a_ratio_is_that_of_the_times() -> None:
    timing = compare(fast, slow, clock(lambda _: 1.0), seconds=2.0)
    assert timing.ratio == timing.ratio_low == timing.ratio_high == pytest.approx(0.25)
    assert timing.seconds == pytest.approx(0.01)
    assert timing.base_seconds == pytest.approx(0.04)
    assert timing.rounds == 20  # 0.05 s a round, and as much to warm up
    assert timing.spread == 0


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, FEWEST), (1e9, MOST)])
def test_rounds_have_bounds(seconds: float, rounds: int) -> None:
    assert compare(fast, slow, clock(lambda _: 1.0), seconds).rounds == rounds


def test_a_burst_of_load_hits_both() -> None:
    timing = compare(fast, slow, clock(lambda n: 3.0 if n > 30 else 1.0), seconds=1.0)
    assert timing.ratio == pytest.approx(0.25)
    assert timing.seconds <= 0.03


def test_an_outlier_moves_nothing() -> None:
    timing = compare(fast, slow, clock(lambda n: 50.0 if n == 20 else 1.0), seconds=1.0)
    assert timing.ratio == pytest.approx(0.25)


def test_median_interval() -> None:
    # Of 15 values the 4th and the 12th: fewer than 4 lie below the median in 1.8 % of cases.
    assert median_interval(np.arange(15.0)) == (7.0, 3.0, 11.0)


def test_the_interval_covers_the_median() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        _, low, high = median_interval(rng.exponential(size=31))
        inside += low <= np.log(2) <= high
    assert inside >= 0.95 * 400


def test_torch_counts_seconds() -> None:
    matrix = torch.randn(64, 64)
    assert 0 < torch_stopwatch(1)(lambda: matrix @ matrix, 3) < 1
