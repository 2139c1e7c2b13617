"""The picture of a front: where its axis begins, and what it says of what lies below."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from evosearch.report.plot import accuracy_bars, begin_at, plot_front
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation
from tests.report.test_columns import NETWORK
from tests.report.toyrun import toy_run


def network(accuracy: float, images: int = 10_000) -> NamedNetwork:
    score = Score(loss=1.0, loss_se=0.1, accuracy=accuracy, accuracy_se=0.0, images=images)
    return replace(NETWORK, evaluation=Evaluation(score=score, seconds=0.0))


def test_the_axis_begins_where_the_front_does_and_says_what_lies_below() -> None:
    axes = Figure().add_subplot()
    members = [network(0.90), network(0.95)]
    note = begin_at(
        axes,
        members,
        {"plain": [network(0.5), network(0.61), network(0.91)], "fair": [network(0.92)]},
    )
    low, high = axes.get_ylim()
    first, last = members[0].search.accuracy_interval, members[1].search.accuracy_interval
    assert 0 < 100 * first[0] - low < 1
    assert 0 < high - 100 * last[1] < 1
    assert note == "below the axis: 2 plain (down to 50.0 %)"


def test_nothing_is_noted_where_nothing_lies_below() -> None:
    axes = Figure().add_subplot()
    assert begin_at(axes, [network(0.9)], {"plain": [network(0.95)]}) == ""


def test_bars_reach_over_the_interval() -> None:
    down, up = accuracy_bars([network(1.0, images=350).search])
    assert down == [pytest.approx(1.0856, abs=1e-3)]
    assert up == [pytest.approx(0.0, abs=1e-9)]


def test_every_kind_of_reference_is_in_the_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = toy_run(tmp_path / "run", 30)
    names = ["plain", "fair", "plain", "fair"]
    beside = tuple(replace(study.header.base, name=name) for name in names)
    study.header = replace(study.header, references=(study.header.base, *beside))
    drawn: list[Figure] = []
    monkeypatch.setattr(
        "evosearch.report.plot.save_figure", lambda figure, path: drawn.append(figure)
    )
    plot_front(study, study.front(), tmp_path / "front.png")
    _, labels = drawn[0].axes[0].get_legend_handles_labels()
    assert labels.count("plain") == labels.count("fair") == labels.count("base network") == 1
