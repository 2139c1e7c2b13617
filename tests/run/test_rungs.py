"""A rung that costs more than the next one: left out by its measured time, once and for all."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evosearch.engine.executor import Job, Measured, carried_out
from evosearch.engine.loop import Limits, search
from evosearch.engine.measurements import Measurements
from evosearch.errors import InputError
from evosearch.run.config import SearchConfig
from evosearch.run.probing import worthwhile
from evosearch.space.budget import Budget
from evosearch.strategies.base import RungPlan, Strategy
from evosearch.study.rungtimes import RungTimes
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Rung
from tests.run.test_session import BUDGET, SPACE, builder, header
from tests.toys import ToyEvaluator, comparable

COMPENSATED = RungPlan(rung=Rung.COMPENSATED, survivors=12)
PARTIAL = RungPlan(rung=Rung.PARTIAL, survivors=8, share=0.25)


class Clocked:
    """Measures as toys do, and says of every job that it took what a clock of its own says."""

    images = ToyEvaluator.images

    def __init__(self, errors: Sequence[float], scores: Sequence[float]) -> None:
        self._toys = ToyEvaluator(failing=False)
        self._errors, self._scores = iter(errors), iter(scores)
        self.jobs: list[Job] = []

    def measure(self, jobs: Sequence[Job]) -> Iterator[Measured]:
        for job in jobs:
            self.jobs.append(job)
            done = carried_out(self._toys, job)
            seconds = next(self._errors if job.images is None else self._scores, 0.0)
            yield Measured(scores=done.scores, error=done.error, seconds=seconds)

    def close(self) -> None:
        pass


def climbed(
    folder: Path, executor: Clocked, plans: Sequence[RungPlan], build: str = "compensated"
) -> Sequence[RungPlan]:
    """Returns the rungs that a run on toys climbs."""
    config = SimpleNamespace(search=SearchConfig.model_validate({"evaluator": {"build": build}}))
    prepared: Any = SimpleNamespace(
        config=config, subject=SimpleNamespace(discovery=SimpleNamespace(space=SPACE))
    )
    measurements = Measurements(executor, ScoreStore(folder / "scores"))
    return worthwhile(folder, prepared, plans, BUDGET, measurements, lambda _: None)


def test_the_median_of_three_fresh_candidates_decides(tmp_path: Path) -> None:
    slow = Clocked(errors=[1.0, 15.5, 15.5], scores=[99.0, 9.9, 9.9])
    assert climbed(tmp_path, slow, [COMPENSATED, PARTIAL]) == [PARTIAL]
    assert [job.images for job in slow.jobs] == [None] * 3 + [range(25)] * 3
    assert len({job.mask for job in slow.jobs}) == 3
    assert all(BUDGET.violation(SPACE.cost(job.mask)) == 0 for job in slow.jobs)
    (left,) = RungTimes.load(tmp_path).costlier  # type: ignore[union-attr]
    assert (left.rung, left.seconds) == (Rung.COMPENSATED, 15.5)
    assert (left.following, left.following_seconds) == (Rung.PARTIAL, 9.9)


def test_the_decision_is_recorded_and_not_taken_again(tmp_path: Path) -> None:
    climbed(tmp_path, Clocked([2.0] * 3, [1.0] * 3), [COMPENSATED, PARTIAL])
    other = Clocked([1.0] * 3, [2.0] * 3)
    assert climbed(tmp_path, other, [COMPENSATED, PARTIAL]) == [PARTIAL]
    assert other.jobs == []


def test_a_rung_that_costs_no_more_stays(tmp_path: Path) -> None:
    both = [COMPENSATED, PARTIAL]
    assert climbed(tmp_path, Clocked([1.0] * 3, [1.0] * 3), both) == both


def test_without_a_partial_rung_the_next_is_the_whole_split(tmp_path: Path) -> None:
    executor = Clocked([2.0] * 3, [1.0] * 3)
    assert climbed(tmp_path, executor, [COMPENSATED]) == []
    assert executor.jobs[-1].images == range(100)


def test_what_cannot_be_timed_stays(tmp_path: Path) -> None:
    class Failing(Clocked):
        def measure(self, jobs: Sequence[Job]) -> Iterator[Measured]:
            failed = Measured(failure="RuntimeError: no luck", seconds=0.0)
            for job, measured in zip(jobs, super().measure(jobs), strict=True):
                yield failed if job.images is None else measured

    both = [COMPENSATED, PARTIAL]
    assert climbed(tmp_path, Failing([9.0] * 3, [1.0] * 3), both) == both


@pytest.mark.parametrize(
    ("plans", "build"),
    [([], "compensated"), ([PARTIAL], "compensated"), ([COMPENSATED], "elastic")],
)
def test_nothing_is_timed_without_a_compensated_error(
    plans: list[RungPlan], build: str, tmp_path: Path
) -> None:
    executor = Clocked([], [])
    left = [plan for plan in plans if plan.rung is Rung.PARTIAL]
    assert climbed(tmp_path, executor, plans, build) == left
    assert executor.jobs == []


def test_a_damaged_record_is_refused_with_what_to_do(tmp_path: Path) -> None:
    RungTimes(seconds={Rung.FULL: 1.0}).save(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps({"HIGHEST": 1.0}))
    with pytest.raises(InputError, match=r"rungs\.json: damaged .*delete it"):
        RungTimes.load(tmp_path)


def studied(folder: Path, executor: Clocked, trials: int) -> Study:
    """Begins a search of `genetic` in a folder, or goes on with it."""

    def rungs(strategy: Strategy, aim: Budget, measurements: Measurements) -> Sequence[RungPlan]:
        return climbed(folder, executor, strategy.ladder)

    if folder.exists():
        study = Study.open_for_appending(folder)
    else:
        folder.mkdir()
        study = Study.create(folder, header("genetic"))
    search(
        study=study,
        space=SPACE,
        build=builder("genetic"),
        executor=executor,
        store=ScoreStore(folder / "scores"),
        limits=Limits(trials=trials),
        climbed=rungs,
    )
    return study


def test_a_search_goes_on_with_the_rungs_that_it_began_with(tmp_path: Path) -> None:
    def slow() -> Clocked:
        return Clocked([2.0] * 3, [1.0] * 3)

    def fast() -> Clocked:
        return Clocked([1.0] * 3, [2.0] * 3)

    def with_and_then(first: Callable[[], Clocked], then: Callable[[], Clocked]) -> Study:
        folder = tmp_path / f"{first.__name__}-{then.__name__}"
        studied(folder, first(), 20)
        return studied(folder, then(), 40)

    left_out = studied(tmp_path / "whole", slow(), 40)
    assert comparable(with_and_then(slow, fast).trials) == comparable(left_out.trials)
    assert all(step.rung is not Rung.COMPENSATED for t in left_out.trials for step in t.steps)
    climbing = with_and_then(fast, slow)
    later = [step.rung for t in climbing.trials[20:] for step in t.steps]
    assert Rung.COMPENSATED in later
