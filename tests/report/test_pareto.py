"""The view of a run in a terminal: what it says, when it is silent, and that it follows."""

import threading
from pathlib import Path

import pytest
from rich.console import Console

from evosearch.report.follow import follow, is_held
from evosearch.report.pareto import ParetoView
from evosearch.report.progress import Pace
from evosearch.run.lock import RunLock
from evosearch.study.accuracy_certificate import AccuracyCertificate, Confirmation, ConfirmedDrop
from evosearch.study.certificate import add_claim
from evosearch.study.rungtimes import RungTimes
from evosearch.study.trial import Rung
from tests.report.toyrun import ODD, toy_run, write_card


def shown(view: ParetoView, width: int = 140) -> str:
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(view.render())
    return capture.get()


def test_a_run_is_shown_with_its_proof_knee_and_test_accuracy(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 40)
    knee = study.front().knee.number
    plain = shown(ParetoView.read(tmp_path / "run"))
    assert f"trial {knee}, knee" in plain
    assert "proof: 3 groups with 26 channels in all" in plain
    assert "1 frozen part (" in plain
    assert "5 stopped below the last rung, 5 failed" in plain
    assert "distilled" not in plain
    assert "above base" not in plain

    write_card(tmp_path / "run", f"trial {knee}")
    write_card(tmp_path / "run", "plan 0123abcd")
    (tmp_path / "run" / "artifacts" / "odd").mkdir()
    (tmp_path / "run" / "artifacts" / "odd" / "card.json").write_text("{")
    view = ParetoView.read(tmp_path / "run")
    text = shown(view)
    assert "70.00 (60.4 to 78.1)" in text
    assert "plan 0123abcd, distilled 2 epochs" in text
    content = view.to_json()
    (point,) = [point for point in content["front"] if point["knee"]]
    assert point["test_distilled"]["accuracy"] == 0.7
    assert content["proof"]["frozen"][0]["reason"] == f"network output {ODD}"


def test_an_accuracy_budget_compares_with_the_base_network(tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 40, least_accuracy=0.5)
    view = ParetoView.read(tmp_path / "run")
    assert "above base, points" in shown(view)
    point = view.to_json()["front"][0]
    low, high = point["accuracy_above_base_interval"]
    assert low < point["accuracy_above_base"] < high < 0


def test_the_certificate_of_the_budget_is_shown(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 40, least_accuracy=0.5)
    assert ParetoView.read(tmp_path / "run").to_json()["certificate"] is None
    drop = ConfirmedDrop(images=500, lost=4.0, gained=2.0, bound=0.0123)
    certificate = AccuracyCertificate(
        budget=study.requested,
        drop=0.02,
        images=500,
        attempts=(Confirmation(trial=7, drop=drop),),
    )
    add_claim(tmp_path / "run", certificate)
    view = ParetoView.read(tmp_path / "run")
    assert "accuracy drop of 2.00 points certified: trial 7 loses at most 1.23 points" in shown(
        view, width=400
    )
    assert view.to_json()["certificate"] == {
        "trial": 7,
        "certified": True,
        "text": str(certificate),
    }


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 16, scored=False)
    (tmp_path / "run" / "space.toml").unlink()
    view = ParetoView.read(tmp_path / "run")
    text = shown(view)
    assert "proof" not in text
    assert "tied:" not in text
    assert {point["tied"] for point in view.to_json()["front"]} == {None}


def test_a_run_without_trials_is_shown(tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 0)
    assert "0 trials" in shown(ParetoView.read(tmp_path / "run"))


def test_a_rung_that_was_left_out_is_named_with_what_it_costs(tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 8, strategy="genetic")
    assert "left out" not in shown(ParetoView.read(tmp_path / "run"))
    RungTimes(seconds={Rung.COMPENSATED: 15.5, Rung.PARTIAL: 9.9}).save(tmp_path / "run")
    view = ParetoView.read(tmp_path / "run")
    assert (
        "the rung 'compensated' is left out: at 15.5 s a candidate it costs more than the next,"
        " 'partial', at 9.9 s"
    ) in " ".join(shown(view).split())
    assert view.to_json()["ladder_left_out"] == [
        {
            "rung": "COMPENSATED",
            "seconds": 15.5,
            "following": "PARTIAL",
            "following_seconds": 9.9,
        }
    ]


def test_following_ends_when_nobody_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.report.follow.SECONDS", 0.01)
    toy_run(tmp_path / "run", 8)
    assert not is_held(tmp_path / "run")
    lock = RunLock(tmp_path / "run")
    assert is_held(tmp_path / "run")
    console = Console(width=120, force_terminal=False)
    follower = threading.Thread(
        target=follow, args=(tmp_path / "run", lambda: "the front", console), daemon=True
    )
    follower.start()
    follower.join(0.1)
    assert follower.is_alive()
    lock.release()
    follower.join(10)
    assert not follower.is_alive()


def test_pace_counts_evaluations_and_seconds_of_each_rung(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 8)
    pace = Pace()
    for trial in study.trials:
        pace.add(trial)
    assert pace.trials == 8
    assert pace.rate.endswith(" evaluations/s")
    # Five complete, one stopped at the partial rung; a repeat and a failure spend nothing.
    assert "two-step 0.1 s, partial 0.6 s, full 2.5 s, strategy and the rest 0.0 s" in pace.shares
