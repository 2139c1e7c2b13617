"""The loop of ask, evaluate, record and tell, round by round; imported without torch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby, islice, zip_longest

from evosearch.aims import aim_of, begin_segment
from evosearch.engine.executor import Executor
from evosearch.engine.ladder import Ladder
from evosearch.engine.measurements import Measurements
from evosearch.errors import EvosearchError, InputError
from evosearch.space.budget import Budget
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import RungPlan, Strategy
from evosearch.study.front import ParetoFront
from evosearch.study.latency_certificate import Check
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Proposal, Trial

EXHAUSTED = 1000
"""So many repeated masks in a row mean that the space holds no others."""
HOPELESS = 20
"""So many failures of measured candidates in a row mean that the fault is not theirs."""


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
    NOTHING_NEW = "the strategy knows no other plan within the budget: all that it knows are tried"

    @property
    def is_whole(self) -> bool:
        """Whether there was nothing else to do."""
        return self in (Outcome.TRIALS, Outcome.EXHAUSTED, Outcome.NOTHING_NEW)


def _all_rungs(
    strategy: Strategy, _aim: Budget, _measurements: Measurements
) -> Sequence[RungPlan]:
    return strategy.ladder


def search(
    *,
    study: Study,
    space: SearchSpace,
    build: Callable[[Budget, Sequence[Trial], Measurements], Strategy],
    executor: Executor,
    store: ScoreStore,
    limits: Limits,
    climbed: Callable[[Strategy, Budget, Measurements], Sequence[RungPlan]] = _all_rungs,
    measure_front: Callable[[Study], tuple[Check, ...]] = lambda _: (),
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
        build: gives a fresh strategy for a budget, and the trials proposed for other ones; the
            strategy may have measured what it needs to know.
        executor: measures masks.
        store: keeps the scores of images.
        limits: when to stop.
        climbed: gives the rungs of a strategy for a budget that its rounds climb; what they cost
            may be measured first.
        measure_front: times candidates where the budget has a latency, now and then.
        on_trial: called after every record.
        should_stop: asked before every evaluation.

    Raises:
        InputError: the records are not what this strategy and seed propose.
        EvosearchError: so many candidates failed one after another that none will do.
        StorageError: a record cannot be written.
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
        _require_hope(study.trials)

    measurements = Measurements(executor, store, checkpoint)
    try:
        while True:
            segment = study.segments[-1]
            strategy = build(segment.aim, study.trials[: segment.first], measurements)
            ladder = Ladder(
                space=space,
                plans=climbed(strategy, segment.aim, measurements),
                size=study.header.resource,
                measurements=measurements,
            )
            more = _search_segment(study, strategy, ladder, checkpoint, record)
            checks = measure_front(study)
            if not more and _is_spent(study, space, checks):
                raise _Ended(Outcome.NOTHING_NEW)
            begin_segment(study, study.requested, space.smallest_cost, checks)
    except _Ended as end:
        return end.outcome


def _search_segment(
    study: Study,
    strategy: Strategy,
    ladder: Ladder,
    checkpoint: Callable[[], None],
    record: Callable[[Trial], None],
) -> bool:
    """Goes on with the open segment until it is time for another aim, if ever.

    Returns:
        Whether the strategy has more to propose.
    """
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
        checkpoint()
        asked = time.perf_counter()
        proposals = strategy.ask()
        asked_in = time.perf_counter() - asked
        _require_same(started, proposals)
        if not proposals:
            return False
        climbed = list(started)
        if len(started) < len(proposals):
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
        if aim_of(study.requested).is_due(study.segments, len(study.trials)):
            return True


def _is_spent(study: Study, space: SearchSpace, checks: tuple[Check, ...]) -> bool:
    """Returns whether no other aim helps a strategy that has nothing new for the last one."""
    segment = study.segments[-1]
    checks = checks or segment.checks
    aim = aim_of(study.requested).next(study, study.requested, space.smallest_cost, checks)
    return aim == segment.aim or len(study.trials) == segment.first


def _require_hope(trials: Sequence[Trial]) -> None:
    """Ends a search whose candidates all fail.

    Raises:
        EvosearchError: the last `HOPELESS` candidates that were measured have failed.
    """
    if trials[-1].error is None or trials[-1].duplicate_of is not None:
        return
    measured = (
        trial
        for trial in reversed(trials)
        if trial.duplicate_of is None and (trial.error or trial.evaluation)
    )
    last = list(islice(measured, HOPELESS))
    if len(last) == HOPELESS and all(trial.error for trial in last):
        raise EvosearchError(
            f"the last {HOPELESS} candidates that were measured all failed, the last one with:"
            f" {last[0].error}; the run is kept: evosearch resume tries the next one"
        )


def _front_before(study: Study, generation: int) -> Sequence[Trial]:
    """Returns the front, smallest first, as it was before a round."""
    trials = [trial for trial in study.trials if trial.generation < generation]
    size = study.header.resource
    return ParetoFront(trials=trials, budget=study.budget, size=size).members


def _require_same(started: Sequence[Trial], proposals: Sequence[Proposal]) -> None:
    for trial, proposal in zip_longest(started, proposals[: len(started)]):
        if proposal is None or trial.mask != proposal.mask:
            raise InputError(
                f"trial {trial.number} is not what this strategy and seed propose: the run's"
                " config, its knowledge or evosearch itself changed since"
            )
