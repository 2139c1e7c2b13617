"""The aim of a latency budget: a model predicts it, timings correct the model and certify it."""

from collections.abc import Sequence
from statistics import median
from typing import final

from evosearch.aims.base import Measurer
from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import Cost
from evosearch.space.resources import RESOURCES
from evosearch.study.certificate import Claim
from evosearch.study.front import ParetoFront
from evosearch.study.latency_certificate import Check, LatencyCertificate, interval
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
        if aim.bounds["latency"].high >= smallest.latency:
            return aim
        return aim.but(latency=Bound(low=smallest.latency, high=smallest.latency))

    def is_due(self, segments: Sequence[Segment], trials: int) -> bool:
        """See `Aim.is_due`: parts double, as every new aim has the strategy begin anew."""
        first = segments[-1].first
        return trials - first >= max(SEGMENT_TRIALS, first)

    def check(self, study: Study, measurer: Measurer) -> tuple[Check, ...]:
        """See `Aim.check`: times the best of the front, or what came nearest to the budget."""
        best = list(reversed(study.front().members))[:CHECKED]
        if not best:
            complete = [t for t in study.trials if t.is_complete and t.duplicate_of is None]
            best = sorted(complete, key=lambda t: t.violation(study.budget))[:CHECKED]
        return _timed(best, measurer)

    def conclude(
        self,
        study: Study,
        measurer: Measurer,
        earlier: Sequence[Claim],  # noqa: ARG002
    ) -> LatencyCertificate:
        """Times the best trial against the base network, then smaller ones, until one holds.

        A trial keeps the budget where the upper end of its interval does in each of a few
        processes: they differ by more than a process can see by itself. Of each trial the slowest
        counts.
        """
        assert measurer.conditions is not None
        budget, base = study.requested, study.header.base_cost.latency
        limit = budget.bounds["latency"].high
        attempts: tuple[Check, ...] = ()
        certified = False
        for trial in list(reversed(study.front(RESOURCES["latency"]).members))[:ATTEMPTS]:
            checks: tuple[Check, ...] = ()
            for _ in range(PROCESSES):
                checks += _timed([trial], measurer)
                certified = interval(checks[-1].timing, budget, base)[1] <= limit
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

    def winner(self, front: ParetoFront) -> Trial:
        """See `Aim.winner`: the knee."""
        return front.knee


def corrected(budget: Budget, checks: Sequence[Check], base_picoseconds: int) -> Budget:
    """Returns a latency budget in the model's terms, corrected by what was measured.

    The correction is the median over the checks of the upper end of the measured interval over
    the prediction, so that what meets the aim can be certified.

    Args:
        budget: what the user asked for; has a latency.
        checks: trials that were timed; without any there is nothing to correct by.
        base_picoseconds: the base network's latency.
    """
    factors = [interval(c.timing, budget, base_picoseconds)[1] / c.predicted for c in checks]
    amount = max(1, int(budget.bounds["latency"].high / median(factors or [1.0])))
    return budget.but(latency=Bound(low=amount, high=amount))


def _timed(trials: Sequence[Trial], measurer: Measurer) -> tuple[Check, ...]:
    timings = measurer.time([trial.mask for trial in trials])
    return tuple(
        Check(trial=trial.number, predicted=trial.cost.latency, timing=timing)
        for trial, timing in zip(trials, timings, strict=True)
    )
