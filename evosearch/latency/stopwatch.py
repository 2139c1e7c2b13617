"""Fair timing on a busy machine: short blocks, the base network in turn with the other."""

from collections.abc import Callable
from math import ceil
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from evosearch.machine import torch_threads
from evosearch.study.timing import Timing

Runner = Callable[[], object]
"""Runs a network once."""

BLOCK = 1e-3
"""Seconds that a network runs in a row, at least, before it is the other's turn: less than what
a busy system gives one process at a time, so that most blocks are whole."""
FEWEST, MOST = 15, 101
"""Rounds of a comparison."""


class Stopwatch(Protocol):
    """Measures how long something takes."""

    def __call__(self, run: Runner, number: int) -> float:
        """Returns the mean seconds of one of `number` runs in a row."""
        ...


def torch_stopwatch(threads: int) -> Stopwatch:
    """Returns a clock that waits for accelerators, as that of `torch.utils.benchmark` does.

    (Its own `Timer` cannot take turns cheaply, and importing it looks for compilers, aloud.)
    One run comes before those that count: it finds the caches full of another network's data.

    Args:
        threads: of torch on the CPU while it measures.
    """

    def measure(run: Runner, number: int) -> float:
        with torch_threads(threads):
            run()
            wait()
            began = perf_counter()
            for _ in range(number):
                run()
            wait()
            return (perf_counter() - began) / number

    return measure


def wait() -> None:
    """Waits until accelerators have done all that they were given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def in_turn(rounds: int, measure: Callable[[int], float]) -> NDArray[np.float64]:
    """Returns what is measured of two things in turn, `(rounds, 2)`.

    What else runs on the machine hits both. Which one goes first changes every round.

    Args:
        rounds: how often each is measured.
        measure: measures the first (0) or the second (1).
    """
    found = np.empty((rounds, 2))
    for number, row in enumerate(found):
        for column in (0, 1) if number % 2 else (1, 0):
            row[column] = measure(column)
    return found


def compare(network: Runner, base: Runner, stopwatch: Stopwatch, seconds: float) -> Timing:
    """Times a network against the base network, a short block of each in turn.

    Their ratio is steadier than either time.

    Args:
        network: the one to measure.
        base: the one to compare with.
        stopwatch: the clock.
        seconds: to spend, as far as the least and most rounds allow.
    """
    runs = (network, base)
    single = [_single(run, stopwatch) for run in runs]
    blocks = [ceil(BLOCK / time) for time in single]
    round_time = sum((block + 1) * time for block, time in zip(blocks, single, strict=True))
    rounds = min(MOST, max(FEWEST, round(seconds / round_time)))
    times = in_turn(rounds, lambda own: stopwatch(runs[own], blocks[own]))
    seconds, low, high = median_interval(times[:, 0])
    ratio, ratio_low, ratio_high = median_interval(times[:, 0] / times[:, 1])
    return Timing(
        seconds=seconds,
        low=low,
        high=high,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        base_seconds=float(np.median(times[:, 1])),
        rounds=rounds,
    )


def median_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Returns the median and its 95 % interval by order statistics, `(count,)` with count >= 6.

    The interval needs no assumption on the distribution: how many values lie below the true
    median is binomial (Conover 1999, section 3.2).
    """
    ordered, count = np.sort(values), len(values)
    lower = int(binom.ppf(0.025, count, 0.5)) - 1
    return float(np.median(ordered)), float(ordered[lower]), float(ordered[count - 1 - lower])


def _single(run: Runner, stopwatch: Stopwatch) -> float:
    """Returns about what one run takes, in seconds; the run before it warms caches up."""
    stopwatch(run, 1)
    return max(1e-7, min(stopwatch(run, 1) for _ in range(3)))
