"""What a prompt and a notebook show: one line for each object, tables for fronts and views."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from rich.console import Group

import evosearch
from evosearch.report.columns import NAME, measured_columns
from evosearch.report.front import Front
from evosearch.report.latency import timed_front_table
from evosearch.report.notebook import as_html, as_text
from evosearch.report.plot import plot_front
from evosearch.report.tables import terminal_table
from evosearch.run.timedfront import TimedFront
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.cost import Cost
from evosearch.space.mask import ChannelGroup, Mask, Member
from evosearch.space.text import load_space
from evosearch.study.networks import NamedNetwork, Prediction
from evosearch.study.scores import Score
from evosearch.study.study import Study
from evosearch.study.timing import Conditions
from evosearch.study.trial import Evaluation, Rung, Step, Trial, TrialState
from tests.report.toyrun import ODD, toy_run

LONGEST = 160
"""Characters of a line that is still taken in at a glance."""
COST = Cost(macs=86_000, params=9_140, activations=5)
SCORE = Score(loss=0.0731, loss_se=0.0272, accuracy=0.75, accuracy_se=0.04, images=100)
SCORED = "loss 0.073 ±0.027, accuracy 75.00 (65.7 to 82.5) %"
MASK = Mask({"g": np.array([True, False])})


class Cells(HTMLParser):
    """The rows of all tables, cell by cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "br":
            self.rows[-1][-1] += " "

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.replace("\n", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook") / "run"
    toy_run(folder, 16)
    return folder


def trial(**outcome: object) -> Trial:
    given = {"mask": MASK, "cost": COST, "genome": {}, "state": TrialState.COMPLETE} | outcome
    return Trial(number=17, generation=2, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SCORE, f"Score({SCORED}, 100 images)"),
        (
            trial(evaluation=Evaluation(score=SCORE, seconds=1.0)),
            f"Trial(17: 172K FLOPs, 9.14K params, {SCORED})",
        ),
        (
            trial(evaluation=Evaluation(score=SCORE, seconds=1.0), duplicate_of=3),
            f"Trial(17: 172K FLOPs, 9.14K params, {SCORED}, repeats trial 3)",
        ),
        (
            trial(
                state=TrialState.PRUNED,
                steps=(Step(rung=Rung.TWO_STEP, score=1.0, images=0, seconds=0.1),),
            ),
            "Trial(17: 172K FLOPs, 9.14K params, stopped at TWO_STEP)",
        ),
        (
            trial(state=TrialState.FAIL, error="out of memory"),
            "Trial(17: 172K FLOPs, 9.14K params, failed: out of memory)",
        ),
        (
            NamedNetwork(
                name="trial 17",
                mask=MASK,
                cost=COST,
                evaluation=Evaluation(score=SCORE, seconds=1.0),
                test=SCORE,
            ),
            f"NamedNetwork(trial 17: 172K FLOPs, 9.14K params, search {SCORED}, test {SCORED})",
        ),
        (
            NamedNetwork(
                name="plan", mask=MASK, cost=COST, prediction=Prediction(loss=0.5, high=0.6)
            ),
            "NamedNetwork(plan: 172K FLOPs, 9.14K params, search loss 0.500, predicted)",
        ),
        (Budget.exactly(macs=86_000), "Budget(172K FLOPs)"),
        (
            BudgetRequest.of(flops="25%..50%", params="0.5K").resolve(
                Cost(macs=1_000, params=600, activations=1)
            ),
            "Budget(500 to 1K FLOPs, 500 params)",
        ),
        (
            Budget.of(macs=Budget.exactly(macs=500).bounds["macs"], least_accuracy=0.98),
            "Budget(1K FLOPs, search accuracy of 98.00%)",
        ),
        (
            Mask({n: np.arange(4) < 3 for n in "abcdef"}),
            "Mask(a=3, b=3, c=3, d=3, e=3, f=3)",
        ),
        (
            Mask({n: np.arange(4) < 3 for n in "abcdefg"}),
            "Mask(21 of 28 channels in 7 groups)",
        ),
        (
            ChannelGroup("g", 8, (Member(tensor="w", dim=1, positions=tuple(range(8))),), 2, 4),
            "ChannelGroup(g: size 8, members 1, min_keep 2, multiple_of 4)",
        ),
        (Member(tensor="w", dim=1, positions=(0, 1)), "Member(w[1], 2 positions)"),
    ],
)
def test_a_value_is_one_telling_line(value: object, shown: str) -> None:
    assert repr(value) == shown


def objects(run: evosearch.Run) -> Iterator[object]:
    """Yields what a user reaches from a run, and meets at a prompt."""
    study = run.study
    yield from (run, study, study.header, study.header.base, study.budget, study.segments[0])
    yield from (study.header.identity, study.front(), run.pick(), run.pick().mask, *study.trials)
    space = load_space(run.folder / "space.toml")
    yield from (space, *space.groups, *space.groups[0].members)


def test_what_a_run_gives_is_one_line_each(folder: Path) -> None:
    for value in objects(evosearch.load_run(folder)):
        assert "\n" not in repr(value)
        assert len(repr(value)) <= LONGEST, repr(value)


def test_a_run_says_how_far_it_is(folder: Path) -> None:
    run = evosearch.load_run(folder)
    members = run.front.members
    assert repr(run) == (
        f"Run({folder}: rates, seed 0, 16 trials, best loss {members[-1].loss:.3f},"
        f" front of {len(members)}, 2 failed)"
    )
    ends = [f"{2 * member.cost.macs / 1000:.3g}K" for member in (members[0], members[-1])]
    assert repr(run.study.front()) == (
        f"ParetoFront({len(members)} of 16 trials, {ends[0]} to {ends[1]} FLOPs,"
        f" loss {members[0].loss:.3f} to {members[-1].loss:.3f}, knee: trial"
        f" {run.front.knee.number})"
    )


def test_a_front_is_a_table_of_its_members_in_text_and_html(folder: Path) -> None:
    run = evosearch.load_run(folder)
    front = run.front
    names = ["base", *(f"trial {t.number}" for t in front.members)]
    lines = [line for line in repr(front).splitlines() if line.startswith((" base", " trial"))]
    assert [name for name, line in zip(names, lines, strict=True) if name not in line] == []
    heads, *rows = Cells(front._repr_html_()).rows
    columns = measured_columns(run.study)
    assert heads == ["network", *(column.header.replace("\n", " ") for column in columns)]
    assert [row[0].removesuffix(", knee") for row in rows] == names
    knee = NamedNetwork.of_trial(front.knee)
    assert [row[1:] for row in rows if row[0].endswith(", knee")] == [
        [column.cell(knee) for column in columns]
    ]
    assert Cells(run._repr_html_()).rows == [heads, *rows]
    assert run._repr_html_().startswith(f"<p>Run({folder}: ")
    assert front.members == run.study.front().members


def test_a_front_without_members_shows_what_there_is(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 3, least_accuracy=1.0)
    assert study.front().members == ()
    assert repr(study.front()) == "ParetoFront(0 of 3 trials)"
    assert "base" in repr(Front.of(study))
    assert "front of 0" in repr(evosearch.load_run(tmp_path / "run"))


def test_views_show_what_the_command_line_prints(folder: Path) -> None:
    view = evosearch.pareto(folder)
    text = as_text(view.render())
    assert repr(view) == text
    assert "trial" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    html = view._repr_html_()
    assert html.count("<table>") == 2  # the front, and how far its rungs can be trusted
    assert "<p>proof: 3 groups" in html


def test_html_escapes_what_it_shows(folder: Path) -> None:
    base = Study.open(folder).header.base
    odd = NamedNetwork(name=ODD, mask=base.mask, cost=base.cost)
    html = as_html(Group(terminal_table((NAME,), [odd]), ODD))
    assert "<b>" not in html
    assert "<script" not in html
    assert Cells(as_html(terminal_table((NAME,), [odd]))).rows == [["network"], [ODD]]
    timed = TimedFront(
        conditions=Conditions(
            device="cpu", runtime="eager", batch=1, threads=1, versions={"torch": "2"}
        ),
        networks=[odd],
    )
    assert "<b>" not in as_html(timed_front_table(Study.open(folder), timed))
    assert repr(timed) == f"TimedFront(eager, batch 1, 1 thread, torch 2, on cpu: {ODD})"


def test_a_run_draws_itself_and_leaves_matplotlib_as_it_was(folder: Path, tmp_path: Path) -> None:
    with mpl.rc_context({"backend": "svg"}):
        run = evosearch.load_run(folder)
        figure = run.plot()
        labels = figure.axes[0].get_legend_handles_labels()[1]
        assert {"front", "knee", "base network"} <= set(labels)
        assert figure._repr_png_().startswith(b"\x89PNG\r\n")  # type: ignore[attr-defined]
        plot_front(run.study, run.front, tmp_path / "front.png")
        assert mpl.rcParams["backend"] == "svg"
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG\r\n")
