"""Timing a run's candidates for real: to correct the model, and to certify the winner."""

from collections.abc import Sequence
from pathlib import Path

from evosearch.certificate import Certificate, Check, interval
from evosearch.latency.meter import Meter
from evosearch.latencymodel import LatencyModel
from evosearch.study import Study
from evosearch.trial import Objective, Trial

CHECKED = 3
"""Candidates that are timed to correct the model."""
ATTEMPTS = 8
"""Most trials that are timed to certify one."""
SECONDS = 8.0
"""That one of either is timed in turn with the base network, about."""


def check_front(study: Study, meter: Meter) -> tuple[Check, ...]:
    """Times the best candidates of a study's front, or what came nearest to the budget."""
    best = list(reversed(study.front().members))[:CHECKED]
    if not best:
        complete = [t for t in study.trials if t.is_complete and t.duplicate_of is None]
        best = sorted(complete, key=lambda t: t.violation(study.budget))[:CHECKED]
    return tuple(_checked(trial, meter) for trial in best)


def certify(folder: Path, study: Study, meter: Meter, model: LatencyModel) -> Certificate:
    """Times the best trial against the base network, then smaller ones, until one is certified.

    A trial keeps the budget where the upper end of its interval does. What came of it is kept in
    the run's folder.

    Args:
        folder: of the run.
        study: has the trials.
        meter: times them.
        model: of the run.

    Raises:
        StorageError: the certificate cannot be written.
    """
    budget, base = study.requested, model.base_picoseconds
    assert budget.latency is not None
    attempts: list[Check] = []
    certified = False
    for trial in _candidates(study):
        attempts.append(_checked(trial, meter))
        certified = interval(attempts[-1].timing, budget, base)[1] <= budget.latency.high
        if certified:
            break
    certificate = Certificate(
        limit=budget.latency.high,
        relative=budget.relative_latency,
        base_picoseconds=base,
        conditions=meter.conditions,
        attempts=tuple(attempts),
        certified=certified,
    )
    certificate.save(folder)
    return certificate


def _candidates(study: Study) -> Sequence[Trial]:
    """Returns the front from the least loss down in predicted latency."""
    return list(reversed(study.front(Objective.LATENCY).members))[:ATTEMPTS]


def _checked(trial: Trial, meter: Meter) -> Check:
    timing = meter.time(trial.mask, SECONDS)
    return Check(trial=trial.number, predicted=trial.cost.latency, timing=timing)
