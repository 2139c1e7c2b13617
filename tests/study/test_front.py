"""Fronts against enumeration, DEAP's ranks and Optuna's hypervolume."""

from collections.abc import Sequence

import numpy as np
import pytest
from deap import base, tools
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from evosearch.errors import InputError
from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.study.front import ParetoFront
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation, Rung, Trial, TrialState

EVERYTHING = Budget.of(macs=Bound(low=1, high=10**9))
points = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=25)


def trial(number: int, macs: int, loss: float | None, **changes: object) -> Trial:
    score = Score(loss=loss or 0.0, loss_se=0.0, accuracy=0.5, accuracy_se=0.0, images=10)
    evaluation = None if loss is None else Evaluation(score=score, seconds=0.0,
        rung=changes.pop("rung", Rung.FULL),
    )  # fmt: skip
    mask = Mask({"g": np.arange(16) < number % 16})
    return Trial(
        number=number,
        generation=0,
        mask=mask,
        genome={},
        cost=Cost(macs=macs, params=macs * 2, activations=1),
        state=TrialState.FAIL if loss is None else TrialState.COMPLETE,
        evaluation=evaluation,
        **changes,
    )


def front_of(trials: Sequence[Trial], budget: Budget = EVERYTHING) -> ParetoFront:
    return ParetoFront(trials=trials, budget=budget, size=RESOURCES["macs"])


def dominates(a: Trial, b: Trial) -> bool:
    x, y = (a.cost.macs, a.evaluation.score.loss), (b.cost.macs, b.evaluation.score.loss)
    return x[0] <= y[0] and x[1] <= y[1] and x != y


@given(points)
def test_members_are_the_non_dominated(values: list[tuple[int, int]]) -> None:
    trials = [trial(i, macs, loss) for i, (macs, loss) in enumerate(values)]
    front = front_of(trials)
    best = [t for t in trials if not any(dominates(other, t) for other in trials)]
    expected = {}
    for t in best:
        expected.setdefault((t.cost.macs, t.evaluation.score.loss), t.number)
    assert [t.number for t in front.members] == [expected[key] for key in sorted(expected)]
    sizes = [t.cost.macs for t in front.members]
    losses = [t.evaluation.score.loss for t in front.members]
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)
    assert len(front.members) + len(front.dominated) == len(trials)


class Fitness(base.Fitness):
    weights = (-1.0, -1.0)


class Row:
    def __init__(self, values: tuple[float, float]) -> None:
        self.fitness = Fitness(values)


@given(points)
def test_agrees_with_deap(values: list[tuple[int, int]]) -> None:
    rows = [Row(value) for value in values]
    first = tools.sortNondominated(rows, len(rows), first_front_only=True)[0]
    front = front_of([trial(i, *value) for i, value in enumerate(values)])
    found = {(t.cost.macs, t.evaluation.score.loss) for t in front.members}
    assert found == {tuple(row.fitness.values) for row in first}


@settings(deadline=None)
@given(points, st.integers(2, 15), st.integers(2, 15))
def test_hypervolume_agrees_with_optuna(
    values: list[tuple[int, int]], size: int, loss: int
) -> None:
    front = front_of([trial(i, *value) for i, value in enumerate(values)])
    inside = np.array([v for v in values if v[0] < size and v[1] < loss], dtype=float)
    expected = 0.0
    if len(inside):
        expected = compute_hypervolume(inside, np.array([size, loss], dtype=float)) / (size * loss)
    assert front.hypervolume((size, loss)) == pytest.approx(expected)


def test_hypervolume_by_hand() -> None:
    front = front_of([trial(0, 2, 3.0), trial(1, 4, 1.0)])
    # of the box 10 x 4: (10 - 2)(4 - 3) + (10 - 4)(3 - 1) = 20
    assert front.hypervolume((10.0, 4.0)) == pytest.approx(20 / 40)
    assert front_of([]).hypervolume((10.0, 4.0)) == 0


def test_only_feasible_full_distinct_trials_enter() -> None:
    budget = Budget.of(macs=Bound(low=5, high=10))
    trials = [
        trial(0, 11, 0.1),
        trial(1, 10, 0.5),
        trial(2, 3, None, error="failed"),
        trial(3, 2, 0.2, rung=Rung.PARTIAL),
        trial(4, 10, 0.5, duplicate_of=1),
        trial(5, 4, 0.9),
    ]
    front = front_of(trials, budget)
    assert [t.number for t in front.candidates] == [1, 5]
    assert [t.number for t in front.members] == [5, 1]
    assert front.points.tolist() == [[10, 0.5], [4, 0.9]]


def test_knee_is_farthest_below_the_line_between_the_ends() -> None:
    front = front_of([trial(0, 10, 10.0), trial(1, 20, 3.0), trial(2, 50, 2.0), trial(3, 90, 1.0)])
    assert front.knee.number == 1


def test_best_is_the_one_of_least_loss() -> None:
    front = front_of([trial(0, 10, 3.0), trial(1, 20, 2.0), trial(2, 30, 1.0), trial(3, 20, 9.0)])
    assert front.best().number == 2


def test_an_empty_front_says_so() -> None:
    empty = front_of([trial(0, 5, None, error="failed")])
    assert empty.members == ()
    for ask in (empty.best, lambda: empty.knee):
        with pytest.raises(InputError, match="no feasible evaluated trial yet"):
            ask()


def test_what_is_minimised() -> None:
    one = trial(0, 7, 0.25)
    sizes = [RESOURCES[name].of(one.cost) for name in ("macs", "params")]
    assert [one.loss, *sizes] == [0.25, 7, 14]
    failed = trial(1, 7, None, error="failed")
    assert RESOURCES["macs"].of(failed.cost) == 7
    with pytest.raises(ValueError, match="trial 1 failed: it has no loss"):
        _ = failed.loss
