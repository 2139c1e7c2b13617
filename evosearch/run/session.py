"""A session on a run: its folder held, searched, certified, and let go again."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import final

from evosearch.aims import aim_of
from evosearch.engine.executor import Executor
from evosearch.engine.loop import Limits, Outcome, search
from evosearch.engine.measurements import Measurements
from evosearch.engine.parallel import OneByOne, Workers
from evosearch.errors import EvosearchError
from evosearch.machine import changes_since, torch_threads
from evosearch.run.baselines import BASELINES, search_baselines
from evosearch.run.budgeting import change_budget, resolved_budget
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.config import SearchConfig
from evosearch.run.ended import Ended
from evosearch.run.folder import RunFolder
from evosearch.run.lock import RunLock
from evosearch.run.log import RunLog, unexpected_logged
from evosearch.run.measurer import RunMeasurer
from evosearch.run.preparation import Prepared, prepare
from evosearch.run.probing import probed, probes_worth, worthwhile
from evosearch.run.reopening import RunEvaluator, reopen
from evosearch.run.spacefile import SpaceFile
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.knowledge import Knowledge
from evosearch.stages import OnStage
from evosearch.strategies import strategy_class
from evosearch.strategies.base import Problem, RungPlan, Strategy
from evosearch.study.certificate import Certificate, add_claim, load_certificates, load_claims
from evosearch.study.latency_certificate import Check
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Trial


@final
class Session:
    """A run that this process holds: what it works with, and its study so far."""

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
        anyway: bool = False,
        callbacks: Callbacks = SILENT,
    ) -> "Session":
        """Prepares a new run in a folder, and holds it; see `preparation.prepare`."""
        notes: list[str] = []
        with unexpected_logged(folder):
            prepared = prepare(
                folder,
                space_file=space_file,
                space_folder=space_folder,
                search=search,
                request=request,
                anyway=anyway,
                callbacks=callbacks.noting(notes),
            )
        lock = RunLock(folder)
        session = cls(folder, prepared, Study.open_for_appending(folder), lock)
        session._log.event("start", strategy=search.strategy, seed=search.seed)
        for text in notes:
            session._log.event("note", text=text)
        return session

    @classmethod
    def resume(
        cls,
        folder: Path,
        *,
        request: BudgetRequest | None = None,
        callbacks: Callbacks = SILENT,
    ) -> "Session":
        """Opens a run to go on with it.

        Args:
            folder: of the run.
            request: another budget than before, from the next trial on. What was evaluated
                holds, and new proposals learn from it.
            callbacks: told what is being done.

        Raises:
            InputError: the folder holds no run, another process has it, the model that the
                space names is not the one that the run began with, or the budget is at fault.
        """
        Study.open(folder)  # refuses a folder that is no run before a lock file is made in it
        lock = RunLock(folder)
        try:
            with unexpected_logged(folder):
                study = Study.open_for_appending(folder)
                budget = study.requested
                if request is not None:
                    budget = resolved_budget(folder, study, request)
                prepared = reopen(folder, study.header, callbacks.on_stage)
                if budget.measured:
                    prepared.require_device()
                if request is not None:  # last: what is refused changes nothing
                    change_budget(folder, study, budget, prepared)
                threads = prepared.config.search.threads
                changes = changes_since(RunFolder(folder).environment, threads)
                session = cls(folder, prepared, study, lock)
                session._log.event("resume", trials=len(study.trials))
                if changes:  # of which `reopen` warns
                    session._log.event("environment", changes="; ".join(changes))
                return session
        except BaseException:
            lock.release()
            raise

    def run(
        self,
        limits: Limits,
        *,
        workers: int | None = None,
        cluster: str | None = None,
        callbacks: Callbacks = SILENT,
    ) -> Ended:
        """Does all that a session does: searches, then the baselines, certifies, and closes.

        Args:
            limits: when to stop searching.
            workers: processes that measure; None is this one.
            cluster: see `use_workers`.
            callbacks: told how it goes, and asked whether to go on.

        Raises:
            EvosearchError: something is at fault, or cannot be measured or written.
        """
        with closing(self), unexpected_logged(self.folder):
            if workers is not None or cluster is not None:
                self.use_workers(workers or 1, cluster)
            callbacks.on_search(self.study, limits.trials)
            outcome = self.search(limits, callbacks)
            if outcome.is_whole and self.prepared.config.search.baselines:
                baselines = self.search_baselines(callbacks)
                outcome = baselines if baselines is Outcome.STOPPED else outcome
            stopped = outcome is Outcome.STOPPED
            certificate = None if stopped else self.certify(callbacks.on_stage)
            return Ended(outcome=outcome, certificate=certificate)

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
    def full_evaluations(self) -> int:
        """How many networks the search has scored on the whole split, as many probes included."""
        return probes_worth(self.prepared) + self.study.full_evaluations

    def search(self, limits: Limits, callbacks: Callbacks = SILENT) -> Outcome:
        """Searches with the run's strategy until a limit is reached; see `engine.loop.search`."""
        strategy = self.prepared.config.search.strategy
        on_trial = callbacks.told_of(self.study)
        return self._search_with(strategy, self.study, limits, on_trial, callbacks)

    def search_baselines(self, callbacks: Callbacks = SILENT) -> Outcome:
        """Searches with each baseline, for as many trials as the run has full evaluations."""
        limits = Limits(trials=self.full_evaluations)
        callbacks.on_baselines(len(BASELINES) * limits.trials)
        return search_baselines(
            self.folder,
            self.study,
            self.prepared.subject.discovery.space.smallest_cost,
            lambda name, study: self._search_with(
                name, study, limits, callbacks.on_baseline_trial, callbacks
            ),
        )

    def certify(self, on_stage: OnStage = SILENT.on_stage) -> Certificate | None:
        """Measures whether the winner keeps the budget, where that is not certain by itself.

        Returns:
            What came of it; None where there is nothing to certify.
        """
        on_stage("the winner, against the base network")
        earlier, aim = load_claims(self.folder), aim_of(self.study.requested)
        certificate = aim.conclude(self.study, self._measurer, earlier)
        if certificate is None:
            return None
        if certificate not in load_certificates(self.folder)[-1:]:
            add_claim(self.folder, certificate)
        self._log.event("certificate", certified=certificate.certified, text=str(certificate))
        return certificate

    def close(self) -> None:
        """Frees the run for other processes."""
        self._executor.close()
        self._log.close()
        self._lock.release()

    def _search_with(
        self,
        strategy: str,
        study: Study,
        limits: Limits,
        on_trial: Callable[[Trial], None],
        callbacks: Callbacks,
    ) -> Outcome:
        """Searches with any strategy, recording in any study of the same space."""
        config = self.prepared.config.search
        space = self.prepared.subject.discovery.space

        def build(aim: Budget, earlier: Sequence[Trial], measurements: Measurements) -> Strategy:
            def probe(_: Knowledge) -> Knowledge:
                path = RunFolder(self.folder).knowledge
                self.prepared = probed(self.prepared, path, measurements, callbacks.on_stage)
                return self.prepared.knowledge

            return strategy_class(strategy)(
                Problem(
                    space=space,
                    budget=aim,
                    knowledge=self.prepared.knowledge,
                    config=config.settings(strategy),
                    seed=config.seed,
                    earlier=earlier,
                    probe=probe,
                )
            )

        def climbed(
            strategy: Strategy, aim: Budget, measurements: Measurements
        ) -> Sequence[RungPlan]:
            plans, on_stage = strategy.ladder, callbacks.on_stage
            return worthwhile(self.folder, self.prepared, plans, aim, measurements, on_stage)

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
                    store=ScoreStore(
                        RunFolder(self.folder).scores, self.prepared.subject.task.measure
                    ),
                    limits=limits,
                    climbed=climbed,
                    measure_front=self._measure_front,
                    on_trial=recorded,
                    should_stop=callbacks.should_stop,
                )
        except EvosearchError as error:
            self._log.event("end", logging.ERROR, trials=len(study.trials), error=error)
            raise
        self._log.event("end", trials=len(study.trials), outcome=outcome.value)
        return outcome

    def _measure_front(self, study: Study) -> tuple[Check, ...]:
        checks = aim_of(study.requested).check(study, self._measurer)
        for check in checks:
            self._log.event("latency", trial=check.trial, timing=str(check.timing))
        return checks

    @property
    def _measurer(self) -> RunMeasurer:
        return RunMeasurer(self.folder, self.prepared)
