"""The latency of a run's front, timed for real and kept beside the study."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evosearch.latency.journal import Journal
from evosearch.latency.meter import Meter
from evosearch.run.lock import RunLock
from evosearch.run.reopening import reopen_meter
from evosearch.search.probes import OnStage
from evosearch.space.budget import Cost
from evosearch.space.mask import Mask
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing
from evosearch.study.trial import Evaluation

TIMINGS = "timings.jsonl"


@dataclass(frozen=True, kw_only=True)
class TimedNetwork:
    """A network of a run, with its measured latency.

    Attributes:
        name: what tables call it.
        trial: its number; None for one that was measured beside the search.
        cost: its exact cost.
        evaluation: on the search split.
        timing: against the base network.
    """

    name: str
    trial: int | None
    cost: Cost
    evaluation: Evaluation
    timing: Timing


@dataclass(frozen=True, kw_only=True)
class TimedFront:
    """A run's front and what it is compared with, fastest first, and where they were timed."""

    conditions: Conditions
    networks: Sequence[TimedNetwork]


def timed_front(folder: Path, on_stage: OnStage = lambda _: None) -> TimedFront:
    """Times the front of a run and its references; what was timed here before is read back.

    Args:
        folder: of the run.
        on_stage: told what is being done.

    Raises:
        InputError: the folder holds no run, or another process has it.
    """
    study = Study.open(folder)
    lock = RunLock(folder)
    try:
        on_stage("base network and search space")
        meter = reopen_meter(folder, study.header)
        journal = Journal(folder / TIMINGS)
        networks = []
        for reference in study.header.references:
            on_stage(f"latency: {reference.name}")
            timing = _timed(meter, journal, reference.mask)
            networks.append(
                TimedNetwork(
                    name=reference.name,
                    trial=None,
                    cost=reference.cost,
                    evaluation=reference.evaluation,
                    timing=timing,
                )
            )
        for trial in study.front().members:
            on_stage(f"latency: trial {trial.number}")
            assert trial.evaluation is not None
            networks.append(
                TimedNetwork(
                    name=f"trial {trial.number}",
                    trial=trial.number,
                    cost=trial.cost,
                    evaluation=trial.evaluation,
                    timing=_timed(meter, journal, trial.mask),
                )
            )
    finally:
        lock.release()
    networks.sort(key=lambda network: network.timing.ratio)
    return TimedFront(conditions=meter.conditions, networks=networks)


def _timed(meter: Meter, journal: Journal, mask: Mask) -> Timing:
    return journal.timing(f"{mask.key}: {meter.conditions}", lambda: meter.time(mask))
