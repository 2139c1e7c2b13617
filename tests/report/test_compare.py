"""Comparing runs: a common reference point, who dominates whom, and what is not comparable."""

from dataclasses import replace
from pathlib import Path

import moocore
import numpy as np
import pytest
from rich.console import Console

from evosearch.errors import InputError
from evosearch.report.compare import Comparison
from evosearch.report.plot import plot_comparison
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.study.identity import Part
from evosearch.study.study import Study
from tests.report.toyrun import toy_run
from tests.toys import IDENTITY, toy_space


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    toy_run(tmp_path / "one", 40)
    toy_run(tmp_path / "two", 24, seed=1, strategy="random")
    return [tmp_path / "one", tmp_path / "two"]


def test_domination_and_hypervolume_are_those_of_the_points(runs: list[Path]) -> None:
    content = Comparison.read(runs).to_json()
    reference = np.array([content["reference"]["size"], content["reference"]["loss"]])
    fronts = {run["run"]: run["front"] for run in content["runs"]}
    assert list(fronts) == ["one", "two"]
    points = {
        name: np.array([[p["flops"] / 2, p["loss"]] for p in front])
        for name, front in fronts.items()
    }
    for run in content["runs"]:
        volume = moocore.hypervolume(points[run["run"]] / reference, ref=[1.0, 1.0])
        assert run["hypervolume"] == pytest.approx(float(volume))
        other = "two" if run["run"] == "one" else "one"
        for member, point in zip(run["front"], points[run["run"]], strict=True):
            by = {(by["run"], by["trial"]) for by in member["dominated_by"]}
            assert by == {
                (other, rival["trial"])
                for rival, theirs in zip(fronts[other], points[other], strict=True)
                if (theirs <= point).all() and (theirs < point).any()
            }
    assert any(member["dominated_by"] for run in content["runs"] for member in run["front"])


def test_it_is_shown_and_drawn(runs: list[Path], tmp_path: Path) -> None:
    comparison = Comparison.read(runs, RESOURCES["params"])
    console = Console(width=140, markup=False)
    with console.capture() as capture:
        console.print(comparison.render())
    text = capture.get()
    assert "random, seed 1" in text
    member = Study.open(runs[0]).front(RESOURCES["params"]).members[0]
    assert f"one {member.number} " in text
    plot_comparison(comparison.fronts, comparison.base, tmp_path / "fronts.png")
    assert (tmp_path / "fronts.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("a", "b"):
        toy_run(tmp_path / place / "run", 8)
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert list(Comparison.read(folders).studies) == [str(folder) for folder in folders]


def test_what_runs_are_of_is_told_where_it_differs(runs: list[Path], tmp_path: Path) -> None:
    assert [run["differences"] for run in Comparison.read(runs).to_json()["runs"]] == [[], []]
    newer = replace(IDENTITY, parts={**IDENTITY.parts, Part.TORCH: "3.0"})
    toy_run(tmp_path / "newer", 4, identity=newer)
    comparison = Comparison.read([*runs, tmp_path / "newer"])
    found = "torch (was toy torch, is 3.0)"
    assert comparison.to_json()["runs"][2]["differences"] == [found]
    with (console := Console(width=140)).capture() as capture:
        console.print(comparison.render())
    line = f"newer is not of the same as one; from one to newer: {found}"
    assert capture.get().splitlines()[-1] == line


def test_what_cannot_be_compared_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two different runs"):
        Comparison.read([runs[0], runs[0]])
    whole = toy_space()
    other = SearchSpace(groups=whole.groups, terms=whole.terms[:2])
    toy_run(tmp_path / "space", 4, space=other)
    with pytest.raises(InputError, match="one and space are of different search spaces"):
        Comparison.read([runs[0], tmp_path / "space"])
    other_images = replace(IDENTITY, parts={**IDENTITY.parts, Part.SEARCH: "others"})
    toy_run(tmp_path / "images", 4, identity=other_images)
    with pytest.raises(InputError, match=r"one and images score other things.* the search split$"):
        Comparison.read([*runs, tmp_path / "images"])
    toy_run(tmp_path / "base", 4, base_loss=1.25)
    with pytest.raises(InputError, match=r"different base networks .* and 1\.2500\)"):
        Comparison.read([*runs, tmp_path / "base"])
