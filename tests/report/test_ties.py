"""Ties: hand-computed differences, and silence where scores are missing."""

from pathlib import Path

import numpy as np
import pytest

from evosearch.report.ties import above_base, tied_members
from evosearch.study.scores import Difference, ImageScores
from evosearch.study.scorestore import ScoreStore
from tests.report.toyrun import toy_run


def test_a_difference_is_paired_and_its_interval_holds_zero_when_tied() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 1.0, 1.0, 2.0])
    difference = Difference.between(first, second)
    assert difference.mean == pytest.approx(1.75)  # of 0, 1, 2, 4
    assert difference.error == pytest.approx((8.75 / 3) ** 0.5 / 2)
    low, high = difference.interval
    assert (low, high) == pytest.approx((1.75 - 1.96 * 0.8539, 1.75 + 1.96 * 0.8539), abs=1e-3)
    assert not difference.is_tie
    assert Difference.between(second, second).is_tie


def test_members_with_close_losses_are_tied_and_missing_scores_say_nothing(
    tmp_path: Path,
) -> None:
    study = toy_run(tmp_path / "run", 40)
    members = study.front().members
    assert len(members) >= 4
    first, second, third, fourth, *_ = members
    store = ScoreStore(tmp_path / "run" / "scores")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=100)
    for trial, losses in ((first, 1 + noise), (second, 1 + noise + 0.1 * rng.normal(size=100))):
        store.put(trial.mask, ImageScores(losses=losses, metrics=np.ones(100)))
    store.put(third.mask, ImageScores(losses=3 + noise, metrics=np.ones(100)))
    store.put(fourth.mask, ImageScores(losses=np.ones(20), metrics=np.ones(20)))  # a part only
    ties = tied_members(tmp_path / "run", members[:4])
    assert ties == {first.number: [second.number], second.number: [first.number], third.number: []}


def test_accuracy_above_the_base_network_is_paired(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 10)
    members = study.front().members
    base = study.header.base.evaluation.score.accuracy
    for number, difference in above_base(tmp_path / "run", study, members).items():
        evaluation = study.trials[number].evaluation
        assert evaluation is not None
        assert difference.mean == pytest.approx(evaluation.score.accuracy - base)
    unscored = toy_run(tmp_path / "bare", 10, scored=False)
    assert above_base(tmp_path / "bare", unscored, members) == {}
    assert tied_members(tmp_path / "bare", unscored.front().members) == {}
