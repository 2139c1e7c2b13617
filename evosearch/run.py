"""A search on disk: the loop of ask, evaluate, record and tell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import final

from evosearch.controller import SEGMENT_TRIALS
from evosearch.cost import Budget, BudgetRequest
from evosearch.errors import InputError
from evosearch.evaluation.spacefile import SpaceFile
from evosearch.evaluation.training import OnEpoch
from evosearch.files import RunLock
from evosearch.front import ParetoFront
from evosearch.ladder import Ladder
from evosearch.machine import torch_threads
from evosearch.mask import Mask
from evosearch.parallel import Executor, OneByOne, Workers
from evosearch.preparation import (
    OnStage,
    Prepared,
    RunEvaluator,
    begin_segment,
    change_budget,
    prepare,
    reopen,
)
from evosearch.runconfig import SearchConfig
from evosearch.scorestore import ScoreStore
from evosearch.space import SearchSpace
from evosearch.strategies import strategy_class
from evosearch.strategies.base import Strategy
from evosearch.study import Study
from evosearch.trial import Proposal, Trial

SCORES = "scores"
EXHAUSTED = 1000
"""So many repeated masks in a row mean that the space holds no others."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop; whichever comes first.

    Attributes:
        trials: total number of trials in the study.
        seconds: wall time of this session; None is no limit.
    """

    trials: int
    seconds: float | None = None


class _Ended(Exception):
    """A search is over."""

    def __init__(self, outcome: "Outcome") -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class Outcome(Enum):
    """Why a search ended."""

    TRIALS = "all trials are done"
    SECONDS = "the time limit was reached"
    STOPPED = "stopped"
    EXHAUSTED = "the space is exhausted: a thousand proposals in a row repeated earlier masks"


@final
class Run:
    """A search: what it works with, and its study so far."""

    def __init__(self, folder: Path, prepared: Prepared, study: Study, lock: RunLock) -> None:
        """Puts the parts together; use `create` or `resume`."""
        self.folder = folder
        self.prepared = prepared
        self.study = study
        self._lock = lock
        timeout = prepared.config.search.timeout
        self._executor: Executor = OneByOne(prepared.evaluator, timeout)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        space_file: SpaceFile,
        space_folder: Path,
        search: SearchConfig,
        request: BudgetRequest,
        on_stage: OnStage = lambda _: None,
        on_epoch: OnEpoch | None = None,
    ) -> "Run":
        """Prepares a new run in a folder; see `preparation.prepare`."""
        prepared = prepare(
            folder,
            space_file=space_file,
            space_folder=space_folder,
            search=search,
            request=request,
            on_stage=on_stage,
            on_epoch=on_epoch,
        )
        lock = RunLock(folder)
        return cls(folder, prepared, Study.open_for_appending(folder), lock)

    @classmethod
    def resume(
        cls,
        folder: Path,
        *,
        request: BudgetRequest | None = None,
        on_stage: OnStage = lambda _: None,
    ) -> "Run":
        """Opens a run to go on with it.

        Args:
            folder: of the run.
            request: another budget than before, from the next trial on. What was evaluated
                holds, and new proposals learn from it.
            on_stage: told what is being done.

        Raises:
            InputError: the folder holds no run, another process has it, the model that the
                space names is not the one that the run began with, or the budget is at fault.
        """
        Study.open(folder)  # refuses a folder that is no run before a lock file is made in it
        lock = RunLock(folder)
        try:
            study = Study.open_for_appending(folder)
            if request is not None:
                change_budget(folder, study, request)
            return cls(folder, reopen(folder, study.header, on_stage), study, lock)
        except BaseException:
            lock.release()
            raise

    def use_workers(self, count: int, cluster: str | None = None) -> None:
        """Has worker processes measure; what they find is what this process would.

        Args:
            count: of processes on this machine.
            cluster: address of a dask scheduler whose workers see the run's folder; then they
                measure, however many they are.

        Raises:
            InputError: the cluster is not there, or not fit.
        """
        self._executor = Workers(
            RunEvaluator(str(self.folder.resolve())),
            images=self.prepared.evaluator.images,
            count=count,
            cluster=cluster,
            timeout=self.prepared.config.search.timeout,
        )

    @property
    def front(self) -> ParetoFront:
        """The front so far."""
        return self.study.front()

    def search(
        self,
        limits: Limits,
        *,
        on_trial: Callable[[Trial], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Searches until a limit is reached; see `search`."""
        return self.search_with(
            self.prepared.config.search.strategy,
            self.study,
            limits,
            on_trial=on_trial,
            should_stop=should_stop,
        )

    def search_with(
        self,
        strategy: str,
        study: Study,
        limits: Limits,
        *,
        on_trial: Callable[[Trial], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Searches with any strategy, recording in any study of the same space."""
        config = self.prepared.config.search
        space = self.prepared.subject.discovery.space

        def build(aim: Budget, earlier: Sequence[Trial]) -> Strategy:
            return strategy_class(strategy)(
                space=space,
                budget=aim,
                knowledge=self.prepared.knowledge,
                config=config.settings(strategy),
                seed=config.seed,
                earlier=earlier,
            )

        with torch_threads(config.threads):
            return search(
                study=study,
                space=space,
                build=build,
                executor=self._executor,
                store=ScoreStore(self.folder / SCORES),
                limits=limits,
                on_trial=on_trial,
                should_stop=should_stop,
            )

    def close(self) -> None:
        """Frees the run for other processes."""
        self._executor.close()
        self._lock.release()


def search(
    *,
    study: Study,
    space: SearchSpace,
    build: Callable[[Budget, Sequence[Trial]], Strategy],
    executor: Executor,
    store: ScoreStore,
    limits: Limits,
    on_trial: Callable[[Trial], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Asks, evaluates, records and tells, round by round, until a limit is reached.

    Recorded rounds are told to the strategy first, so a study that was cut short anywhere goes
    on as if it had not been: proposals are a function of the seed and the rounds told, and a
    round that was cut is asked for again and evaluated from where it stopped.

    Args:
        study: gets one record per trial, in the order of the proposals.
        space: what is searched.
        build: gives a fresh strategy for a budget, and the trials proposed for other ones.
        executor: measures masks.
        store: keeps the scores of images.
        limits: when to stop.
        on_trial: called after every record.
        should_stop: asked before every evaluation.

    Raises:
        InputError: the records are not what this strategy and seed propose.
    """
    began = time.monotonic()

    def checkpoint() -> None:
        if len(study.trials) >= limits.trials:
            raise _Ended(Outcome.TRIALS)
        if limits.seconds is not None and time.monotonic() - began >= limits.seconds:
            raise _Ended(Outcome.SECONDS)
        if should_stop():
            raise _Ended(Outcome.STOPPED)

    def record(trial: Trial) -> None:
        if len(study.trials) >= limits.trials:
            raise _Ended(Outcome.TRIALS)
        study.append(trial)
        on_trial(trial)
        last = study.trials[-EXHAUSTED:]
        if len(last) == EXHAUSTED and all(t.duplicate_of is not None for t in last):
            raise _Ended(Outcome.EXHAUSTED)

    try:
        while True:
            segment = study.segments[-1]
            strategy = build(segment.aim, study.trials[: segment.first])
            ladder = Ladder(
                space=space,
                plans=strategy.ladder,
                size=study.header.size_objective,
                executor=executor,
                store=store,
                checkpoint=checkpoint,
            )
            _search_segment(study, strategy, ladder, checkpoint, record)
            begin_segment(study, study.budget, space)
    except _Ended as end:
        return end.outcome


def _search_segment(
    study: Study,
    strategy: Strategy,
    ladder: Ladder,
    checkpoint: Callable[[], None],
    record: Callable[[Trial], None],
) -> None:
    """Goes on with the open segment; returns when it is time for another aim, if ever."""
    first = study.segments[-1].first
    rounds = [
        list(trials) for _, trials in groupby(study.trials[first:], key=lambda t: t.generation)
    ]
    for trials in rounds[:-1]:
        strategy.tell(trials)
    started = rounds[-1] if rounds else []
    earlier = study.trials[: len(study.trials) - len(started)]
    known: dict[Mask, Trial] = {}
    for trial in earlier:
        known.setdefault(trial.mask, trial)
    generation = earlier[-1].generation + 1 if earlier else 0
    while True:
        asked = time.perf_counter()
        proposals = strategy.ask()
        asked_in = time.perf_counter() - asked
        _require_same(started, proposals)
        climbed = list(started)
        if len(started) < len(proposals):
            checkpoint()
            for trial in ladder.climb(
                proposals,
                first=len(study.trials) - len(started),
                generation=generation,
                started=started,
                front=_front_before(study, generation) if strategy.ladder else (),
                known=known,
                asked_in=asked_in,
            ):
                record(trial)
                climbed.append(trial)
        strategy.tell(climbed)
        for trial in climbed:
            known.setdefault(trial.mask, trial)
        started = []
        generation += 1
        tried = len(study.trials) - first
        if study.budget.least_accuracy is not None and tried >= SEGMENT_TRIALS:
            return


def _front_before(study: Study, generation: int) -> Sequence[Trial]:
    """Returns the front, smallest first, as it was before a round."""
    trials = [trial for trial in study.trials if trial.generation < generation]
    size = study.header.size_objective
    return ParetoFront(trials=trials, budget=study.budget, size=size).members


def _require_same(started: Sequence[Trial], proposals: Sequence[Proposal]) -> None:
    for trial, proposal in zip(started, proposals, strict=False):
        if trial.mask != proposal.mask:
            raise InputError(
                f"trial {trial.number} is not what this strategy and seed propose: the run's"
                " config, its knowledge or evosearch itself changed since"
            )
