"""The trust report: how well each rung's order agrees with the next one's, read off a study."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.space.resources import Resource
from evosearch.study.trial import Rung, Step, Trial

SIMILAR = 0.1
"""Trials whose sizes differ by at most this share of the larger one are compared: that a larger
network is better, every rung knows."""
MISLEADING = 0.5
"""A rung whose Kendall tau with the next is under this misleads."""


@final
@dataclass(frozen=True, kw_only=True)
class RungReport:
    """What a study says of one rung.

    Attributes:
        rung: the rung.
        images: search images that it scores on; 0 where it scores on none.
        candidates: how many it judged.
        seconds: wall time that it took in all; None where that is not recorded by itself.
        tau: Kendall's tau between its scores and those of the next rung, over pairs of similar
            size; None where there are none.
        pairs: number of those pairs.
    """

    rung: Rung
    images: int
    candidates: int
    seconds: float | None = None
    tau: float | None = None
    pairs: int = 0

    @property
    def misleads(self) -> bool:
        """Whether its order is too far from that of the next rung."""
        return self.tau is not None and self.tau < MISLEADING

    @property
    def name(self) -> str:
        """The rung as people read it."""
        images = f", {self.images} images" if self.images else ""
        return f"{rung_name(self.rung)}{images}"


def rung_name(rung: Rung) -> str:
    """Returns a rung as people read it."""
    return rung.name.lower().replace("_", "-")


def rung_reports(trials: Sequence[Trial], size: Resource) -> list[RungReport]:
    """Returns what a study says of each rung that its trials climbed, lowest first.

    Tau is read off those that climbed on, the better ones, so that it is rather too low.

    Args:
        trials: of the study; repeated ones do not count.
        size: the size that its trials are compared in.
    """
    climbed = [trial for trial in trials if trial.duplicate_of is None and trial.steps]
    rungs = sorted({(step.rung, step.images) for trial in climbed for step in trial.steps})
    scores = {
        rung: {t.number: step.score for t in climbed for step in t.steps if _key(step) == rung}
        for rung in rungs
    }
    sizes = {trial.number: float(size.of(trial.cost)) for trial in climbed}
    following = dict(pairwise(rungs))
    reports = _screening(trials)
    for rung in rungs:
        tau, pairs = None, 0
        if rung in following:
            later = scores[following[rung]]
            both = [number for number in scores[rung] if number in later]
            tau, pairs = kendall_tau(
                np.array([scores[rung][n] for n in both]),
                np.array([later[n] for n in both]),
                np.array([sizes[n] for n in both]),
            )
        seconds = sum(s.seconds for t in climbed for s in t.steps if _key(s) == rung)
        reports.append(
            RungReport(
                rung=rung[0],
                images=rung[1],
                candidates=_judged(trials, rung[0]) or len(scores[rung]),
                seconds=seconds,
                tau=tau,
                pairs=pairs,
            )
        )
    return reports


def kendall_tau(
    first: NDArray[np.float64], second: NDArray[np.float64], sizes: NDArray[np.float64]
) -> tuple[float | None, int]:
    """Returns Kendall's tau over pairs of similar size, and the number of those pairs.

    The share of pairs that both order alike minus the share that they order differently; a pair
    that one of them ties counts for neither.
    """
    left, right = np.triu_indices(len(first), k=1)
    larger = np.maximum(sizes[left], sizes[right])
    similar = np.abs(sizes[left] - sizes[right]) <= SIMILAR * larger
    left, right = left[similar], right[similar]
    if len(left) == 0:
        return None, 0
    agreement = np.sign(first[left] - first[right]) * np.sign(second[left] - second[right])
    return float(agreement.mean()), len(left)


def _key(step: Step) -> tuple[Rung, int]:
    return step.rung, step.images


def _screening(trials: Sequence[Trial]) -> list[RungReport]:
    """Returns the report of the first rung, which only counts."""
    made = _judged(trials, Rung.COST)
    return [RungReport(rung=Rung.COST, images=0, candidates=made)] if made else []


def _judged(trials: Sequence[Trial], rung: Rung) -> int:
    """Returns how many candidates a strategy says to have judged by itself, over generations."""
    pools = {trial.generation: trial.genome.get("pool", {}) for trial in trials}
    return sum(pool.get(rung.name, 0) for pool in pools.values())
