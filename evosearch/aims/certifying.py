"""Timing a run's candidates for real: to correct the model, and to certify the winner."""

from collections.abc import Callable, Sequence
from pathlib import Path

from evosearch.latency.model import LatencyModel
from evosearch.space.mask import Mask
from evosearch.study.certificate import Certificate, Check, interval
from evosearch.study.study import Study
from evosearch.study.timing import Timing
from evosearch.study.trial import Objective, Trial

CHECKED = 3
"""Candidates that are timed to correct the model."""
ATTEMPTS = 8
"""Most trials that are timed to certify one."""
PROCESSES = 3
"""Times that a trial is timed to be certified."""
SECONDS = 8.0
"""That one of either is timed in turn with the base network, about."""

TimeMasks = Callable[[Sequence[Mask]], list[Timing]]
"""Times the networks that masks leave against the base network."""


def check_front(study: Study, time: TimeMasks) -> tuple[Check, ...]:
    """Times the best candidates of a study's front, or what came nearest to the budget."""
    best = list(reversed(study.front().members))[:CHECKED]
    if not best:
        complete = [t for t in study.trials if t.is_complete and t.duplicate_of is None]
        best = sorted(complete, key=lambda t: t.violation(study.budget))[:CHECKED]
    return _checked(best, time)


def certify(folder: Path, study: Study, time: TimeMasks, model: LatencyModel) -> Certificate:
    """Times the best trial against the base network, then smaller ones, until one is certified.

    A trial keeps the budget where the upper end of its interval does in each of a few processes:
    they differ by more than a process can see by itself. Of each trial the slowest counts. What
    came of it is kept in the run's folder.

    Args:
        folder: of the run.
        study: has the trials.
        time: measures.
        model: of the run.

    Raises:
        StorageError: the certificate cannot be written.
    """
    budget, base = study.requested, model.base_picoseconds
    assert budget.latency is not None
    attempts: tuple[Check, ...] = ()
    certified = False
    for trial in list(reversed(study.front(Objective.LATENCY).members))[:ATTEMPTS]:
        checks: tuple[Check, ...] = ()
        for _ in range(PROCESSES):
            checks += _checked([trial], time)
            certified = interval(checks[-1].timing, budget, base)[1] <= budget.latency.high
            if not certified:
                break
        attempts += (max(checks, key=lambda c: interval(c.timing, budget, base)[1]),)
        if certified:
            break
    certificate = Certificate(
        limit=budget.latency.high,
        relative=budget.relative_latency,
        base_picoseconds=base,
        conditions=model.conditions,
        attempts=attempts,
        certified=certified,
    )
    certificate.save(folder)
    return certificate


def _checked(trials: Sequence[Trial], time: TimeMasks) -> tuple[Check, ...]:
    timings = time([trial.mask for trial in trials])
    return tuple(
        Check(trial=trial.number, predicted=trial.cost.latency, timing=timing)
        for trial, timing in zip(trials, timings, strict=True)
    )
