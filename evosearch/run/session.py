"""A search on disk: what it works with, who holds it, and how it goes on."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from evosearch.aims import aim_of
from evosearch.engine.executor import Executor
from evosearch.engine.loop import Limits, Outcome, search
from evosearch.engine.measurements import Measurements
from evosearch.engine.parallel import OneByOne, Workers
from evosearch.engine.probes import OnStage, measure_sensitivity
from evosearch.errors import EvosearchError
from evosearch.files import writing
from evosearch.machine import torch_threads, warn_of_changes
from evosearch.run.config import SearchConfig
from evosearch.run.freshtiming import time_fresh
from evosearch.run.lock import RunLock
from evosearch.run.log import RunLog
from evosearch.run.planning import KNOWLEDGE
from evosearch.run.preparation import Prepared, change_budget, prepare, resolved_budget
from evosearch.run.reopening import RunEvaluator, reopen
from evosearch.run.spacefile import SpaceFile
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.mask import Mask
from evosearch.strategies import strategy_class
from evosearch.strategies.base import Problem, Strategy
from evosearch.study.certificate import Certificate, Check
from evosearch.study.front import ParetoFront
from evosearch.study.scorestore import SCORES, ScoreStore
from evosearch.study.study import Study
from evosearch.study.timing import Timing
from evosearch.study.trial import Trial
from evosearch.training.trainer import OnEpoch

SECONDS = 8.0
"""That a trial is timed in turn with the base network, about."""


@final
class Run:
    """A search: what it works with, and its study so far."""

    def __init__(self, folder: Path, prepared: Prepared, study: Study, lock: RunLock) -> None:
        """Puts the parts together; use `create` or `resume`."""
        self.folder = folder
        self.prepared = prepared
        self.study = study
        self._lock = lock
        self._log = RunLog(folder)
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
        run = cls(folder, prepared, Study.open_for_appending(folder), lock)
        run._log.event("start", strategy=search.strategy, seed=search.seed)
        return run

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
            budget = study.requested
            if request is not None:
                budget = resolved_budget(folder, study, request)
            prepared = reopen(folder, study.header, on_stage)
            if budget.measured:
                prepared.require_device()
            if request is not None:  # last: what is refused changes nothing
                change_budget(folder, study, budget, prepared)
            changes = warn_of_changes(folder, prepared.config.search.threads)
            run = cls(folder, prepared, study, lock)
            run._log.event("resume", trials=len(study.trials))
            if changes:
                run._log.event("environment", logging.WARNING, changes="; ".join(changes))
            return run
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
        self._log.event("workers", count=count, cluster=cluster)
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
        on_stage: OnStage = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Searches until a limit is reached; see `search`.

        Args:
            limits: when to stop.
            on_trial: called after every record.
            on_stage: told what is being done before the first trial.
            should_stop: asked before every evaluation.
        """
        return self.search_with(
            self.prepared.config.search.strategy,
            self.study,
            limits,
            on_trial=on_trial,
            on_stage=on_stage,
            should_stop=should_stop,
        )

    def search_with(
        self,
        strategy: str,
        study: Study,
        limits: Limits,
        *,
        on_trial: Callable[[Trial], None] = lambda _: None,
        on_stage: OnStage = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Searches with any strategy, recording in any study of the same space."""
        config = self.prepared.config.search
        space = self.prepared.subject.discovery.space

        def build(aim: Budget, earlier: Sequence[Trial], measurements: Measurements) -> Strategy:
            kind = strategy_class(strategy)
            if kind.needs_sensitivity:
                self._measure_sensitivity(measurements, on_stage)
            return kind(
                Problem(
                    space=space,
                    budget=aim,
                    knowledge=self.prepared.knowledge,
                    config=config.settings(strategy),
                    seed=config.seed,
                    earlier=earlier,
                )
            )

        def recorded(trial: Trial) -> None:
            self._log.trial(trial)
            on_trial(trial)

        self._log.event("search", strategy=strategy, trials=len(study.trials), until=limits.trials)
        try:
            with torch_threads(config.threads):
                outcome = search(
                    study=study,
                    space=space,
                    build=build,
                    executor=self._executor,
                    store=ScoreStore(self.folder / SCORES),
                    limits=limits,
                    measure_front=self._measure_front,
                    on_trial=recorded,
                    should_stop=should_stop,
                )
        except EvosearchError as error:
            self._log.event("end", logging.ERROR, trials=len(study.trials), error=error)
            raise
        self._log.event("end", trials=len(study.trials), outcome=outcome.value)
        return outcome

    def _measure_sensitivity(self, measurements: Measurements, on_stage: OnStage) -> None:
        """Measures and keeps what the strategy reads, where that is not known yet.

        Cut short, it goes on from the probes whose scores are stored.
        """
        knowledge = self.prepared.knowledge
        if knowledge.sensitivity:
            return
        space, config = self.prepared.subject.discovery.space, self.prepared.config.search
        knowledge = measure_sensitivity(
            space, knowledge, config.keep_ratios, measurements, on_stage
        )
        self.prepared = replace(self.prepared, knowledge=knowledge)
        with writing(self.folder / KNOWLEDGE):
            knowledge.save(self.folder / KNOWLEDGE)

    def _measure_front(self, study: Study) -> tuple[Check, ...]:
        checks = aim_of(study.requested).check(study, self._time)
        for check in checks:
            self._log.event("latency", trial=check.trial, timing=str(check.timing))
        return checks

    def _time(self, masks: Sequence[Mask]) -> list[Timing]:
        return time_fresh(self.folder, masks, SECONDS)[1]

    def certify(self) -> Certificate | None:
        """Measures whether the winner keeps the budget, where that is not certain by itself.

        Returns:
            What came of it; None where there is nothing to certify.
        """
        model = self.prepared.latency
        conditions = None if model is None else model.conditions
        certificate = aim_of(self.study.requested).conclude(self.study, self._time, conditions)
        if certificate is None:
            return None
        certificate.save(self.folder)
        self._log.event("certificate", certified=certificate.certified, text=str(certificate))
        return certificate

    def close(self) -> None:
        """Frees the run for other processes."""
        self._executor.close()
        self._log.close()
        self._lock.release()
