"""What a study says of its rungs: counts, time, and rank correlation over similar sizes."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.study.trial import Rung, Step, Trial, TrialState
from evosearch.study.trust import kendall_tau, rung_reports


def trial(number: int, *scores: tuple[Rung, int, float], macs: int = 100) -> Trial:
    return Trial(
        number=number,
        generation=number // 2,
        mask=Mask({"g": np.arange(9) < number}),
        genome={"pool": {"COST": 50, "TWO_STEP": 30}},
        cost=Cost(macs=macs, params=1, activations=1),
        state=TrialState.PRUNED,
        steps=tuple(Step(rung=r, images=i, score=s, seconds=0.5) for r, i, s in scores),
    )


def test_counts_time_and_tau_of_each_rung() -> None:
    low, part, top = (Rung.COMPENSATED, 0), (Rung.PARTIAL, 10), (Rung.FULL, 40)
    trials = [
        trial(0, (Rung.TWO_STEP, 0, 1.0), (*low, 1.0), (*part, 1.0), (*top, 3.0)),
        trial(1, (Rung.TWO_STEP, 0, 2.0), (*low, 2.0), (*part, 2.0), (*top, 2.0)),
        trial(2, (Rung.TWO_STEP, 0, 3.0), (*low, 3.0), (*part, 3.0), (*top, 1.0)),
        trial(3, (Rung.TWO_STEP, 0, 4.0), (*low, 0.5)),
    ]
    cost, two_step, compensated, partial, full = rung_reports(trials, RESOURCES["macs"])
    assert (cost.rung, cost.candidates) == (Rung.COST, 100)  # two generations
    assert (two_step.candidates, two_step.seconds) == (60, 2.0)
    assert (compensated.candidates, partial.candidates, full.candidates) == (4, 3, 3)
    assert two_step.tau == pytest.approx(0.0)  # 3 of 6 pairs agree
    assert two_step.pairs == 6
    assert (compensated.tau, compensated.misleads) == (1.0, False)
    assert (partial.tau, partial.misleads, partial.name) == (-1.0, True, "partial, 10 images")
    assert full.tau is None


def test_pairs_of_different_size_do_not_count() -> None:
    first, second = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    assert kendall_tau(first, second, np.array([100.0, 200.0, 210.0])) == (-1.0, 1)
    assert kendall_tau(first, second, np.array([100.0, 200.0, 400.0])) == (None, 0)


def test_at_one_size_it_is_kendalls_tau() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 25))
    tau, pairs = kendall_tau(first, second + first, np.full(25, 7.0))
    assert pairs == 300
    assert tau == pytest.approx(kendalltau(first, second + first).statistic)


def test_repeated_trials_and_trials_without_steps_say_nothing() -> None:
    assert rung_reports([trial(0)], RESOURCES["macs"])[1:] == []
