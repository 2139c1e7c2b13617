"""What reports say of finals: the table of a command, the lines of a run, and its JSON."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from evosearch.report.finals import finals_json, finals_lines, finals_table
from evosearch.report.pareto import ParetoView
from evosearch.study.finals import Finals
from evosearch.study.study import Study
from tests.report.toyrun import ODD, toy_run, write_finals


@pytest.fixture
def run(tmp_path: Path) -> tuple[Study, Finals]:
    return toy_run(tmp_path / "run", 16), write_finals(tmp_path / "run")


def shown(what: RenderableType) -> str:
    console = Console(width=400, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_the_table_has_every_finalist_and_the_test_of_the_winner(
    run: tuple[Study, Finals],
) -> None:
    study, finals = run
    lines = shown(finals_table(study, finals)).splitlines()
    rows = {line.split()[1]: line for line in lines if line.strip().startswith("trial")}
    assert list(rows) == ["0", "1", "2"]
    assert "70.00 (60.4 to 78.1)" in rows["0"]
    assert all("70.00 (" not in rows[number] for number in ("1", "2"))
    assert "2.500 ±0.100" in rows["2"]


def test_the_lines_by_hand(run: tuple[Study, Finals]) -> None:
    finals = run[1]
    assert finals_lines(finals) == [
        f"finals at {ODD}: trial 0, distilled 2 epochs, is the last of 3 networks; test accuracy"
        " 70.00 (60.4 to 78.1) %; 1.23e+06 image-MACs",
        "trial 1 against trial 0, after the same training: +2.00 points (95 % interval -3.00 to"
        " +7.00) on 100 confirmation images, 4 gained and 2 lost; no difference is shown",
        "rank correlation (Spearman's) of the search's score with the search accuracy after 1 of"
        " 2 epochs: 1.00 (95 % interval -1.00 to 1.00, 3 networks)",
    ]
    assert finals.gain is not None
    clear = replace(finals, gain=replace(finals.gain, low=0.01))
    assert not finals_lines(clear)[1].endswith("shown")
    assert "not confirmed" in finals_lines(replace(finals, gain=None))[1]
    two = replace(finals, finalists=finals.finalists[:2])
    assert finals_lines(two)[-1].endswith("takes three finalists or more")
    alike = tuple(replace(own, plan=finals.finalists[0].plan) for own in finals.finalists)
    assert "are all the same" in finals_lines(replace(finals, finalists=alike))[-1]


def test_they_say_what_is_measured(run: tuple[Study, Finals]) -> None:
    study, finals = run
    mean_iou = replace(finals, test=replace(finals.test, metric="mIoU", pooled=True), gain=None)
    printed = shown(finals_table(study, mean_iou))
    assert "search mIoU, %" in printed
    assert "test mIoU, %" in printed
    assert "metric" not in printed + shown(finals_table(study, finals))
    lines = finals_lines(mean_iou)
    assert not any("accuracy" in line for line in lines)
    assert "mIoU is of all images together, which no exact bound is for" in lines[1]


def test_a_run_shows_its_finals(tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 16)
    assert ParetoView.read(tmp_path / "run").to_json()["finals"] == []
    finals = write_finals(tmp_path / "run")
    view = ParetoView.read(tmp_path / "run")
    assert all(line in shown(view.render()) for line in finals_lines(finals))
    (entry,) = view.to_json()["finals"]
    assert entry == finals_json(finals)
    assert entry["telling"] == {
        "rho": pytest.approx(1.0),
        "count": 3,
        "interval": [-1.0, 1.0],
        "epoch": 1,
    }
    assert entry["gain"]["mean"] == pytest.approx(0.02)
    assert [own["epochs"] for own in entry["finalists"]] == [2, 2, 1]
