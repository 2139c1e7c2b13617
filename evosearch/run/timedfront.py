"""The latency of a run's front, timed for real and kept beside the study."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evosearch.latency.journal import Journal
from evosearch.latency.meter import Meter
from evosearch.run.folder import RunFolder
from evosearch.run.lock import RunLock
from evosearch.run.reopening import reopen_meter
from evosearch.space.mask import Mask
from evosearch.stages import OnStage
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing


@dataclass(frozen=True, kw_only=True)
class TimedFront:
    """A run's front and what it is compared with, fastest first, and where they were timed."""

    conditions: Conditions
    networks: Sequence[NamedNetwork]

    def __repr__(self) -> str:
        return f"TimedFront({self.conditions}: {', '.join(n.name for n in self.networks)})"


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
        journal = Journal(RunFolder(folder).timings)
        members = [NamedNetwork.of_trial(trial) for trial in study.front().members]
        networks = []
        for network in (*study.header.references, *members):
            on_stage(f"latency: {network.name}")
            networks.append(replace(network, timing=_timed(meter, journal, network.mask)))
    finally:
        lock.release()
    networks.sort(key=lambda network: network.timing.ratio if network.timing else 0.0)
    return TimedFront(conditions=meter.bench.conditions, networks=networks)


def _timed(meter: Meter, journal: Journal, mask: Mask) -> Timing:
    return journal.timing(f"{mask.key}: {meter.bench.conditions}", lambda: meter.time(mask))
