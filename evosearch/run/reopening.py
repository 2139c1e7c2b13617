"""The parts of a run that was begun: held, and loaded again from its folder."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import torch

from evosearch.engine.evaluator import MaskEvaluator
from evosearch.engine.probes import OnStage
from evosearch.errors import InputError
from evosearch.files import writing
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyModel
from evosearch.machine import torch_threads, warn_of_changes
from evosearch.run.config import RunConfig, read_run_config, require_unchanged
from evosearch.run.evaluating import criteria_of, make_evaluator
from evosearch.run.folder import RunFolder
from evosearch.run.lock import RunLock
from evosearch.run.log import RunLog
from evosearch.run.preparation import Prepared, make_meter, timed
from evosearch.run.subject import Subject, load_subject
from evosearch.space.knowledge import Knowledge
from evosearch.study.records import Header
from evosearch.study.study import Study


def reopen(folder: Path, header: Header, on_stage: OnStage) -> Prepared:
    """Loads again what the run in a folder works with.

    Raises:
        InputError: the config is not valid, or the space is not what the study is about.
    """
    config = read_run_config(folder)
    with torch_threads(config.search.threads):
        on_stage("base network and search space")
        subject, latency = _reopen_subject(folder, header, config)
        on_stage("statistics of layer inputs")
        evaluator = make_evaluator(config.search, subject, config.space.finetune)
        path = RunFolder(folder).knowledge
        try:
            knowledge = Knowledge.load(path)
        except InputError:  # it is derived: what is measured again is the same
            knowledge = evaluator.knowledge(criteria_of(config.search))
            with writing(path):
                knowledge.save(path)
    return Prepared(
        config=config,
        subject=subject,
        evaluator=evaluator,
        knowledge=knowledge,
        latency=latency,
    )


@contextmanager
def held(folder: Path) -> Iterator[RunLog]:
    """Keeps a run for this process, and its thread count, inside the block.

    Raises:
        InputError: the folder holds no run, or another process has it.
    """
    threads = read_run_config(folder).search.threads
    lock = RunLock(folder)
    try:
        log = RunLog(folder)
        warn_of_changes(RunFolder(folder).environment, threads)
        with closing(log), torch_threads(threads):
            yield log
    finally:
        lock.release()


def reopen_meter(folder: Path, header: Header) -> Meter:
    """Loads again what times the networks of the run in a folder, and nothing else.

    Raises:
        InputError: as `reopen`, or the runtime is not there.
    """
    config = read_run_config(folder)
    subject, _ = _reopen_subject(folder, header, config)
    return make_meter(config.search, config.space, subject)


def _reopen_subject(
    folder: Path, header: Header, config: RunConfig
) -> tuple[Subject, LatencyModel | None]:
    places = RunFolder(folder)
    require_unchanged(places.config, config, header)
    subject = load_subject(config.space, Path(config.folder), weights=places.base)
    latency = None
    if header.base_cost.latency:
        latency = LatencyModel.load(places.latency)
        subject = timed(subject, latency)
    if subject.discovery.space.digest != header.space_digest:
        raise InputError(
            f"{folder}: the search space is no longer the one that this run began with"
            " (model code, group rules or evosearch changed); start a new run"
        )
    return subject, latency


@dataclass(frozen=True)
class RunEvaluator:
    """Gives a worker process the evaluator of a run, from the run's folder.

    No two sessions share one: the folder of a later session may hold another run.
    """

    folder: str
    session: str = field(default_factory=lambda: uuid4().hex)

    def __call__(self) -> MaskEvaluator:
        """Loads the run as a resumed search would, with its number of threads."""
        folder = Path(self.folder)
        prepared = reopen(folder, Study.open(folder).header, lambda _: None)
        torch.set_num_threads(prepared.config.search.threads)
        return prepared.evaluator
