"""Which size is tried next when the budget is an accuracy."""

from dataclasses import replace

import numpy as np
import pytest

from evosearch.aims import aim_of
from evosearch.aims.accuracy import next_size
from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.study.latency_certificate import Check, corrected
from evosearch.study.networks import NamedNetwork
from evosearch.study.records import Header, Segment
from evosearch.study.scores import Score
from evosearch.study.timing import Timing
from evosearch.study.trial import Evaluation, Trial, TrialState
from tests.toys import IDENTITY

BASE = Cost(macs=1000, params=100, activations=10)
SMALLEST = Cost(macs=20, params=5, activations=1)
BUDGET = Budget.of(macs=Bound(low=1000, high=1000), least_accuracy=0.90)


def evaluation(accuracy: float) -> Evaluation:
    return Evaluation(
        score=Score(loss=1 - accuracy, loss_se=0.1, accuracy=accuracy, accuracy_se=0.01, images=9),
        seconds=0,
    )


HEADER = Header(
    space_digest="",
    config_digest="",
    sizes={},
    least_widths={},
    budget=BUDGET,
    base_cost=BASE,
    strategy="rates",
    seed=0,
    identity=IDENTITY,
    references=(NamedNetwork(name="base", mask=Mask({}), cost=BASE, evaluation=evaluation(0.92)),),
)


def trial(number: int, macs: int, accuracy: float) -> Trial:
    return Trial(
        number=number,
        generation=number,
        mask=Mask({"g": np.arange(9) < number}),
        genome={},
        cost=Cost(macs=macs, params=1, activations=1),
        state=TrialState.COMPLETE,
        evaluation=evaluation(accuracy),
    )


def aims(*history: tuple[int, int, float]) -> int:
    """Returns the next size after trials of (size aimed at, size, accuracy)."""
    trials, segments = [], []
    for number, (aim, macs, accuracy) in enumerate(history):
        segments.append(Segment(first=number, budget=BUDGET, aim=Budget.exactly(macs=aim)))
        trials.append(trial(number, macs, accuracy))
    if not segments:
        segments = [Segment(first=0, budget=BUDGET, aim=BUDGET)]
    found = next_size(trials, segments, BUDGET, HEADER, SMALLEST)
    assert found.bounds["macs"].low == found.bounds["macs"].high
    return found.bounds["macs"].high


def test_the_first_step_takes_a_quarter_when_all_of_the_drop_is_left() -> None:
    assert aims() == 750


def test_a_bound_of_the_users_own_is_tried_first_and_until_something_meets_it() -> None:
    bounded = BUDGET.but(macs=Bound(low=400, high=400))
    tried = Segment(first=0, budget=bounded, aim=Budget.exactly(macs=400))
    for trials, expected in (
        ([], 400),
        ([trial(0, 390, 0.85)], 400),
        ([trial(0, 392, 0.92)], 294),
    ):
        found = next_size(trials, [tried], bounded, HEADER, SMALLEST)
        assert found.bounds["macs"] == Bound(low=expected, high=expected)


def test_the_step_shrinks_with_the_slack() -> None:
    assert aims((500, 500, 0.92)) == 375
    assert aims((600, 600, 0.91)) == 525  # half of the slack: a step of an eighth
    assert aims((500, 500, 0.90)) == 450  # none left: the least step


def test_between_a_failed_and_a_feasible_size_the_accuracy_is_interpolated() -> None:
    # 0.91 at 500 and 0.88 at 125: met a third of the way down in the logarithm.
    assert aims((500, 500, 0.91), (125, 125, 0.88)) == round(500 * 0.25 ** (1 / 3))
    # Never nearer to either end than a quarter of the way.
    assert aims((500, 500, 0.90), (125, 125, 0.20)) == round(500 * 0.25**0.25)


def test_a_closed_bracket_is_pushed_a_little_further() -> None:
    assert aims((500, 500, 0.91), (490, 490, 0.88)) == 485


def test_a_later_success_below_a_failure_forgets_the_failure() -> None:
    assert aims((500, 500, 0.92), (250, 250, 0.85), (250, 240, 0.91)) == 210


def test_the_aim_is_never_under_the_smallest_network() -> None:
    assert aims((21, 21, 0.92)) == 20


def test_infeasible_everywhere_starts_from_the_largest_allowed() -> None:
    assert aims((500, 500, 0.5)) == round(1000 * 0.5**0.25)


@pytest.mark.parametrize("accuracy", [0.1, 0.899])
def test_what_fails_moves_the_next_aim_up(accuracy: float) -> None:
    assert 500 < aims((500, 500, accuracy)) < 1000


def check(predicted: int, ratio_high: float, high: float) -> Check:
    timing = Timing(
        seconds=high, low=high, high=high, ratio=ratio_high, ratio_low=ratio_high,
        ratio_high=ratio_high, base_seconds=1.0, rounds=15,
    )  # fmt: skip
    return Check(trial=0, predicted=predicted, timing=timing)


def test_a_latency_is_corrected_by_what_was_measured() -> None:
    budget = replace(Budget.exactly(latency=600), relative_latency=True)
    # Of a base of 1000 the three take 660, 600 and 720 where 600 was predicted each.
    checks = [check(600, share, 1.0) for share in (0.66, 0.6, 0.72)]
    aim = corrected(budget, checks, 1000)
    assert aim == replace(Budget.exactly(latency=545), relative_latency=True)
    assert corrected(budget, [], 1000) == budget


def test_a_latency_in_time_is_corrected_by_times() -> None:
    aim = corrected(Budget.exactly(latency=600), [check(600, 0.1, 1.2e-9)], 1000)
    assert aim == Budget.exactly(latency=300)


def test_the_fastest_is_searched_for_as_the_smallest_is() -> None:
    """Of sizes 600 (kept) and 450 (in vain) the next lies between, in the model's own terms."""
    budget = replace(Budget.exactly(latency=1000), least_accuracy=0.90, relative_latency=True)
    trials = [
        replace(own, cost=replace(own.cost, latency=own.cost.macs, macs=1))
        for own in (trial(0, 600, 0.91), trial(1, 450, 0.88))
    ]
    segments = [
        Segment(first=n, budget=budget, aim=Budget.exactly(latency=size))
        for n, size in enumerate((600, 450))
    ]
    header = replace(HEADER, budget=budget, base_cost=replace(BASE, latency=1000))
    smallest = replace(SMALLEST, latency=20)
    found = next_size(trials, segments, budget, header, smallest)
    assert list(found.bounds) == ["latency"]
    assert 450 < found.bounds["latency"].high < 600
    assert found.bounds["latency"].high == aims((600, 600, 0.91), (450, 450, 0.88))


def test_what_is_feasible_is_the_budget_over_the_correction_and_not_the_size_tried() -> None:
    budget = replace(Budget.exactly(latency=600), least_accuracy=0.9, relative_latency=True)
    aim = Budget.exactly(latency=300)
    tried = Segment(first=0, budget=budget, aim=aim, checks=(check(600, 0.66, 1.0),))
    assert tried.feasible(1000) == replace(budget, bounds={"latency": Bound(low=545, high=545)})
    plain = replace(budget, least_accuracy=None)
    assert Segment(first=0, budget=plain, aim=aim).feasible(1000).bounds == aim.bounds


def test_parts_with_a_latency_double() -> None:
    budget = Budget.exactly(latency=600)

    def due(first: int, trials: int) -> bool:
        return aim_of(budget).is_due([Segment(first=first, budget=budget, aim=budget)], trials)

    assert [due(0, 11), due(0, 12), due(12, 23), due(12, 24), due(24, 47), due(24, 48)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip
    exact = Budget.exactly(macs=5)
    assert not aim_of(exact).is_due([Segment(first=0, budget=exact, aim=exact)], 1000)
