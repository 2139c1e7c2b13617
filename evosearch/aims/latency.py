"""The aim of a latency budget: a model predicts it, timings correct the model and certify it."""

from collections.abc import Sequence
from typing import final

from evosearch.aims.base import Measurer
from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import Cost
from evosearch.space.resources import RESOURCES
from evosearch.study.certificate import Claim
from evosearch.study.front import ParetoFront
from evosearch.study.latency_certificate import (
    Check,
    LatencyCertificate,
    corrected,
    interval,
)
from evosearch.study.records import Segment
from evosearch.study.study import Study
from evosearch.study.trial import Trial

SEGMENT_TRIALS = 12
"""Trials before the first correction; every later part is as long as all before it."""
CHECKED = 3
"""Candidates that are timed to correct the model."""
ATTEMPTS = 8
"""Most trials that are timed to certify one."""
PROCESSES = 3
"""Times that a trial is timed to be certified."""


@final
class LatencyAim:
    """Trials are proposed for the budget over the correction that the checks call for."""

    def next(
        self,
        study: Study,
        budget: Budget,
        smallest: Cost,
        checks: Sequence[Check],
    ) -> Budget:
        """See `Aim.next`."""
        aim = corrected(budget, checks, study.header.base_cost.latency)
        low, high = aim.bounds["latency"].low, aim.bounds["latency"].high
        least = smallest.latency
        return aim.but(latency=Bound(low=max(low, least), high=max(high, least)))

    def is_due(self, segments: Sequence[Segment], trials: int) -> bool:
        """See `Aim.is_due`: parts double, as every new aim has the strategy begin anew."""
        first = segments[-1].first
        return trials - first >= max(SEGMENT_TRIALS, first)

    def check(self, study: Study, measurer: Measurer) -> tuple[Check, ...]:
        """See `Aim.check`: times the best of the front, or what came nearest to the budget.

        Of a range those are the best, the smallest and one between them.
        """
        front = list(reversed(study.front().members))
        best = front[:CHECKED]
        if study.requested.is_range and len(front) > CHECKED:
            best = [front[0], front[len(front) // 2], front[-1]]
        if not best:
            complete = [t for t in study.trials if t.is_complete and t.duplicate_of is None]
            best = sorted(complete, key=lambda t: t.violation(study.budget))[:CHECKED]
        return timed(best, measurer)

    def conclude(
        self,
        study: Study,
        measurer: Measurer,
        earlier: Sequence[Claim],  # noqa: ARG002
    ) -> LatencyCertificate:
        """Times the best trial against the base network, then smaller ones, until one holds."""
        front = study.front(RESOURCES["latency"])
        return certificate(study, list(reversed(front.members))[:ATTEMPTS], measurer)

    def winner(self, front: ParetoFront) -> Trial:
        """See `Aim.winner`: the knee."""
        return front.knee


def certificate(study: Study, trials: Sequence[Trial], measurer: Measurer) -> LatencyCertificate:
    """Times trials against the base network, one after another, until one keeps the budget.

    A trial keeps it where the upper end of its interval does in each of a few processes: they
    differ by more than a process can see by itself. Of each trial the slowest counts.
    """
    assert measurer.conditions is not None
    budget, base = study.requested, study.header.base_cost.latency
    attempts: tuple[Check, ...] = ()
    certified = False
    for trial in trials:
        checks: tuple[Check, ...] = ()
        for _ in range(PROCESSES):
            checks += timed([trial], measurer)
            upper = interval(checks[-1].timing, budget, base)[1]
            certified = upper <= budget.bounds["latency"].high
            if not certified:
                break
        attempts += (max(checks, key=lambda c: interval(c.timing, budget, base)[1]),)
        if certified:
            break
    return LatencyCertificate(
        budget=budget,
        base_picoseconds=base,
        conditions=measurer.conditions,
        attempts=attempts,
        certified=certified,
    )


def timed(trials: Sequence[Trial], measurer: Measurer) -> tuple[Check, ...]:
    """Returns what a fresh process measures of trials."""
    timings = measurer.time([trial.mask for trial in trials])
    return tuple(
        Check(trial=trial.number, predicted=trial.cost.latency, timing=timing)
        for trial, timing in zip(trials, timings, strict=True)
    )
