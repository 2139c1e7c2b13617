"""A search on disk: the loop of ask, evaluate, record and tell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import final

from evosearch.errors import InputError
from evosearch.evaluation.evaluator import Evaluator
from evosearch.evaluation.spacefile import SpaceFile
from evosearch.evaluation.training import OnEpoch
from evosearch.files import RunLock
from evosearch.front import ParetoFront
from evosearch.mask import Mask
from evosearch.preparation import OnStage, Prepared, prepare, reopen, torch_threads
from evosearch.runconfig import SearchConfig
from evosearch.space import SearchSpace
from evosearch.strategies import strategy_class
from evosearch.strategies.base import Strategy
from evosearch.study import Study
from evosearch.trial import Proposal, Trial, TrialState

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

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        space_file: SpaceFile,
        space_folder: Path,
        search: SearchConfig,
        flops: str | None = None,
        params: str | None = None,
        on_stage: OnStage = lambda _: None,
        on_epoch: OnEpoch | None = None,
    ) -> "Run":
        """Prepares a new run in a folder; see `preparation.prepare`."""
        prepared = prepare(
            folder,
            space_file=space_file,
            space_folder=space_folder,
            search=search,
            flops=flops,
            params=params,
            on_stage=on_stage,
            on_epoch=on_epoch,
        )
        lock = RunLock(folder)
        return cls(folder, prepared, Study.open_for_appending(folder), lock)

    @classmethod
    def resume(cls, folder: Path, on_stage: OnStage = lambda _: None) -> "Run":
        """Opens a run to go on with it.

        Raises:
            InputError: the folder holds no run, another process has it, or the model that the
                space names is not the one that the run began with.
        """
        Study.open(folder)  # refuses a folder that is no run before a lock file is made in it
        lock = RunLock(folder)
        try:
            study = Study.open_for_appending(folder)
            return cls(folder, reopen(folder, study.header, on_stage), study, lock)
        except BaseException:
            lock.release()
            raise

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
        config = self.prepared.config.search
        space = self.prepared.subject.discovery.space
        strategy = strategy_class(config.strategy)(
            space=space,
            budget=self.study.header.budget,
            knowledge=self.prepared.knowledge,
            config=getattr(config, config.strategy),
            seed=config.seed,
        )
        with torch_threads(config.threads):
            return search(
                study=self.study,
                space=space,
                strategy=strategy,
                evaluator=self.prepared.evaluator,
                limits=limits,
                on_trial=on_trial,
                should_stop=should_stop,
            )

    def close(self) -> None:
        """Frees the run for other processes."""
        self._lock.release()


def search(
    *,
    study: Study,
    space: SearchSpace,
    strategy: Strategy,
    evaluator: Evaluator,
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
        strategy: fresh; rebuilt from the study's records.
        evaluator: measures masks.
        limits: when to stop.
        on_trial: called after every record.
        should_stop: asked before every evaluation.

    Raises:
        InputError: the records are not what this strategy and seed propose.
    """
    began = time.monotonic()
    rounds = [list(trials) for _, trials in groupby(study.trials, key=lambda t: t.generation)]
    for trials in rounds[:-1]:
        strategy.tell(trials)
    started = rounds[-1] if rounds else []
    generation = max(0, len(rounds) - 1)
    first_of: dict[Mask, Trial] = {}
    for trial in study.trials:
        first_of.setdefault(trial.mask, trial)
    repeats = 0
    while True:
        proposals = strategy.ask()
        _require_same(started, proposals)
        for proposal in proposals[len(started) :]:
            if len(study.trials) >= limits.trials:
                return Outcome.TRIALS
            if limits.seconds is not None and time.monotonic() - began >= limits.seconds:
                return Outcome.SECONDS
            if should_stop():
                return Outcome.STOPPED
            earlier = first_of.get(proposal.mask)
            number = len(study.trials)
            trial = _outcome(proposal, number, generation, earlier, space, evaluator)
            first_of.setdefault(trial.mask, trial)
            study.append(trial)
            started.append(trial)
            on_trial(trial)
            repeats = 0 if earlier is None else repeats + 1
            if repeats >= EXHAUSTED:
                return Outcome.EXHAUSTED
        strategy.tell(started)
        started = []
        generation += 1


def _outcome(
    proposal: Proposal,
    number: int,
    generation: int,
    earlier: Trial | None,
    space: SearchSpace,
    evaluator: Evaluator,
) -> Trial:
    """Evaluates a proposal; a mask that was tried before gets the outcome that it had then."""
    evaluation = error = None
    if earlier is not None:
        evaluation, error = earlier.evaluation, earlier.error
    else:
        try:
            evaluation = evaluator.evaluate(proposal.mask)
        except Exception as failure:  # one bad candidate must not end the run
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
    return Trial(
        number=number,
        generation=generation,
        mask=proposal.mask,
        genome=proposal.genome,
        cost=space.cost(proposal.mask),
        state=TrialState.FAIL if evaluation is None else TrialState.COMPLETE,
        evaluation=evaluation,
        error=error,
        duplicate_of=None if earlier is None else earlier.number,
    )


def _require_same(started: Sequence[Trial], proposals: Sequence[Proposal]) -> None:
    for trial, proposal in zip(started, proposals, strict=False):
        if trial.mask != proposal.mask:
            raise InputError(
                f"trial {trial.number} is not what this strategy and seed propose: the run's"
                " config, its knowledge or evosearch itself changed since"
            )
