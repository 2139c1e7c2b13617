"""Columns: hand-computed cells and JSON, and a size column wherever its resource matters."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from evosearch.export.card import card_markdown, network_from_card, network_json
from evosearch.report import columns
from evosearch.report.columns import measured_columns, size_column
from evosearch.report.compare import Comparison
from evosearch.report.networks import cut_table, networks_table, plan_json, plan_table
from evosearch.report.pagedata import page_json
from evosearch.report.pareto import ParetoView
from evosearch.report.tables import Column, html_cells, html_table, json_object, terminal_table
from evosearch.report.trials import trial_rows
from evosearch.space.budget import BudgetRequest
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import COUNT, RESOURCES, Resource
from evosearch.study.networks import NamedNetwork, Prediction
from evosearch.study.scores import Difference, Score
from evosearch.study.timing import Timing
from evosearch.study.trial import Evaluation, TrialState
from tests.report.toyrun import timed_space, toy_run, write_card
from tests.toys import toy_space

BASE = Cost(
    macs=1_000_000,
    params=40_000,
    activations=8_000,
    latency=8_000_000_000,
    memory=4_000,
    size=160_000,
)
SCORE = Score(loss=0.12345, loss_se=0.00678, accuracy=0.9876, accuracy_se=0.0123, images=350)
NETWORK = NamedNetwork(
    name="trial 7",
    trial=7,
    mask=Mask({"stem": np.array([True, False, True])}),
    cost=Cost(
        macs=487_000,
        params=10_000,
        activations=2_000,
        latency=3_520_000_000,
        memory=512,
        size=40_160,
    ),
    evaluation=Evaluation(score=SCORE, seconds=0.5),
    test=Score(loss=0.2, loss_se=0.01, accuracy=0.95, accuracy_se=0.02, images=450),
    timing=Timing(
        seconds=0.03,
        low=0.029,
        high=0.031,
        ratio=0.5,
        ratio_low=0.48,
        ratio_high=0.523,
        base_seconds=0.06,
        rounds=15,
    ),
)
BARE = NamedNetwork(name="plan 0a", mask=NETWORK.mask, cost=NETWORK.cost)


def shown(renderable: RenderableType) -> str:
    console = Console(width=180, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_size_is_an_amount_and_a_share_of_the_base_network() -> None:
    sizes = [size_column(resource, BASE) for resource in RESOURCES.values()]
    headers = ["FLOPs", "params", "predicted\nlatency", "memory", "size"]
    assert [column.header for column in sizes] == headers
    cells = ["974K  48.7%", "10K  25.0%", "3.52 ms  44.0%", "512 B  12.8%", "40.2 KB  25.1%"]
    assert [c.cell(NETWORK) for c in sizes] == cells
    assert html_cells(sizes[:3], NETWORK) == [
        "974K (48.70 %)",
        "10K (25.00 %)",
        "3.52 ms (44.00 %)",
    ]
    assert json.dumps(json_object(sizes, NETWORK)) == (  # counts stay whole numbers
        '{"flops": 974000, "flops_ratio": 0.487, "params": 10000, "params_ratio": 0.25,'
        ' "predicted_latency_ms": 3.52, "predicted_latency_ratio": 0.44,'
        ' "memory_bytes": 512, "memory_ratio": 0.128, "size_bytes": 40160, "size_ratio": 0.251}'
    )


@pytest.mark.parametrize("resource", RESOURCES.values(), ids=lambda resource: resource.name)
def test_the_amounts_of_json_are_read_back(resource: Resource) -> None:
    assert resource.from_json(resource.to_json(NETWORK.cost)) == resource.of(NETWORK.cost)


def test_measurements_have_their_errors_and_what_is_unknown_is_empty() -> None:
    assert columns.SEARCH_LOSS.cell(NETWORK) == "0.123 ±0.007"
    assert html_cells([columns.SEARCH_LOSS], NETWORK) == ["0.1235 ±0.0068"]
    assert columns.SEARCH_ACCURACY.cell(NETWORK) == "98.76 (97.0 to 99.5)"
    assert columns.TEST_ACCURACY.cell(NETWORK) == "95.00 (92.6 to 96.7)"
    assert columns.LATENCY.cell(NETWORK) == "30 ms (29 ms to 31 ms)"
    assert columns.LATENCY_RATIO.cell(NETWORK) == "50.0 (48.0 to 52.3)"
    measured = json_object(columns.MEASURED, NETWORK)
    expected = {
        "loss": 0.12345,
        "loss_se": 0.00678,
        "metric": "accuracy",
        "accuracy": 0.9876,
        "accuracy_low": pytest.approx(0.9696189),
        "accuracy_high": pytest.approx(0.9949939),
    }
    assert measured == expected
    known = (*columns.MEASURED, columns.TEST_ACCURACY, columns.LATENCY, columns.LATENCY_RATIO)
    assert {column.cell(BARE) for column in known} == {""}
    assert json_object(columns.MEASURED, BARE) == dict.fromkeys(expected)


def test_headings_and_json_name_the_metric(tmp_path: Path) -> None:
    pooled = replace(SCORE, metric="mAP", pooled=True, accuracy=0.5, accuracy_se=0.01)
    base = replace(NETWORK, evaluation=Evaluation(score=pooled, seconds=1.0), test=pooled)
    study = toy_run(tmp_path / "run", 3)
    study.header = replace(study.header, references=(base,))
    heads = [column.header for column in measured_columns(study)]
    assert heads[-1] == "search mAP, %\n(95 % interval)"
    assert columns.SEARCH_ACCURACY.cell(base) == "50.00 (48.0 to 52.0)"
    found = json_object(measured_columns(study), base)
    assert (found["metric"], found["accuracy"]) == ("mAP", 0.5)
    assert found["accuracy_low"] == pytest.approx(0.4804004)
    for table in (networks_table(study, [base]), cut_table(base, base)):
        assert "mAP, %" in shown(table)
        assert "accuracy" not in shown(table)
    entry = network_json(base, BASE)
    assert (entry["search"]["metric"], entry["search"]["pooled"]) == ("mAP", True)
    card = card_markdown({"networks": [entry]})
    assert "| search mAP | test mAP |" in card
    assert "accuracy" not in card
    assert network_from_card(entry, base.mask).test == pooled
    assert json_object([columns.LATENCY], BARE) == {"latency": None}
    assert columns.PREDICTED_LOSS.cell(BARE) == "unknown"
    predicted = NamedNetwork(
        name="p", mask=BARE.mask, cost=BARE.cost, prediction=Prediction(loss=0.25, high=0.3)
    )
    assert columns.PREDICTED_LOSS.cell(predicted) == "0.250"
    assert json_object([columns.PREDICTED_LOSS], predicted) == {"predicted_loss": 0.25}


def test_notes_on_a_front_are_found_by_trial() -> None:
    knee = columns.trial_column(7)
    assert (knee.cell(NETWORK), html_cells([knee], NETWORK)) == (
        "trial 7, knee",
        ["trial 7 (knee)"],
    )
    assert json_object([columns.trial_column(None)], BARE) == {"trial": None, "knee": False}

    above = columns.above_base_column({7: Difference(mean=-0.01, error=0.005)})
    assert above.cell(NETWORK) == "-1.00 (-1.98 to -0.02)"
    assert above.cell(BARE) == ""
    assert json_object([above], BARE) == {
        "accuracy_above_base": None,
        "accuracy_above_base_interval": None,
    }

    tied = columns.tied_column({7: [3, 5, 9]}, order=[5, 3, 7, 9])
    assert (tied.cell(NETWORK), html_cells([tied], NETWORK)) == ("5", ["5, 3"])
    assert json_object([tied], NETWORK) == {"tied": [3, 5, 9]}
    assert (tied.cell(BARE), json_object([tied], BARE)) == ("", {"tied": None})

    distilled = columns.finished_column({"plan 0a": NETWORK}, "distilled")
    assert distilled.cell(BARE) == "95.00 (92.6 to 96.7)"
    assert json_object([distilled], BARE)["test_distilled"]["images"] == 450

    beaten = columns.dominated_column({"trial 7": [("other", 4), ("third", 0)], "plan 0a": []})
    assert (beaten.cell(NETWORK), beaten.cell(BARE)) == ("other 4", "")
    assert json_object([beaten], NETWORK)["dominated_by"][1] == {"run": "third", "trial": 0}


def test_a_column_that_says_nothing_is_left_out_of_tables() -> None:
    rows = [1, 2]
    said = Column[int](header="said\nonce", cell=lambda row: "yes" if row == 2 else "")
    silent = Column[int](header="silent", cell=lambda _: "")
    assert "silent" not in shown(terminal_table([silent, said], rows))
    assert html_table([silent, said], rows) == {"heads": ["said once"], "rows": [[""], ["yes"]]}


def everywhere(place: Path, request: BudgetRequest, **options: object) -> dict[str, set[str]]:
    """Returns which size headings or keys each view of a run with that budget has."""
    space = timed_space() if options.get("timed") else toy_space()
    study = toy_run(place / "run", 24, space=space, request=request)
    toy_run(place / "run" / "baselines" / "random", 16, seed=1, space=space, request=request)
    other = toy_run(place / "other", 16, seed=2, space=space, request=request)
    write_card(place / "run", "trial 0", space)
    view = ParetoView.read(place / "run")
    compared = Comparison.read([place / "run", place / "other"])
    measured = NamedNetwork.of_trial(other.front().members[0])
    finished = [artifact.network for artifact in view.artifacts.values()]
    base = study.header.base_cost
    content, page = view.to_json(), page_json(view)
    texts = {
        "front": shown(view.render()),
        "compare": shown(compared.render()),
        "plan": shown(plan_table(study, measured)),
        "finished": shown(networks_table(study, finished)),
        "card": card_markdown({"networks": [network_json(n, base) for n in finished]}),
        "hover": " ".join(page["heads"]),
        **{f"page {name}": " ".join(page["tables"][name]["heads"]) for name in (
            "members", "references", "distilled")},
    }  # fmt: skip
    objects = {
        "references": content["references"][0],
        "front": content["front"][0],
        "baselines": content["baselines"]["random"]["front"][0],
        "compare": compared.to_json()["runs"][0]["front"][0],
        "dominated": page["dominated"][0],
        "plan": plan_json(study, measured),
        "rows": trial_rows(study)[0],
    }
    return {
        **{
            f"{name}, text": {w for w in ("FLOPs", "params", "predicted", "activations") if w in t}
            for name, t in texts.items()
        },
        **{
            f"{name}, JSON": {key for key in found if key.endswith("_ratio")}
            for name, found in objects.items()
        },
        "axis, JSON": {page["axis"]["key"]},
    }


def test_flops_and_params_are_always_shown(tmp_path: Path) -> None:
    for name, found in everywhere(tmp_path, BudgetRequest.of(params="70%")).items():
        if name == "axis, JSON":
            assert found == {"params_ratio"}
        elif name.endswith("JSON"):
            assert found == {"flops_ratio", "params_ratio"}, name
        else:
            assert found == {"FLOPs", "params"}, name


def test_a_latency_search_shows_latency_everywhere(tmp_path: Path) -> None:
    request = BudgetRequest.of(latency="90%")
    for name, found in everywhere(tmp_path, request, timed=True).items():
        if name == "axis, JSON":
            assert found == {"predicted_latency_ratio"}
        elif name.endswith("JSON"):
            assert found == {"flops_ratio", "params_ratio", "predicted_latency_ratio"}, name
        else:
            assert found == {"FLOPs", "params", "predicted"}, name
    view = ParetoView.read(tmp_path / "run")
    member, point = view.front.members[0], view.to_json()["front"][0]
    assert point["predicted_latency_ms"] == 1 + 0.5 * member.mask.widths["stem"]
    assert point["predicted_latency_ratio"] == point["predicted_latency_ms"] / 4


def test_a_new_row_of_the_table_of_resources_is_a_column_where_a_budget_limits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Resource(
        name="activations",
        option="activations",
        label="activations",
        unit=" activations",
        quantity=COUNT,
        help="50% or 1M, of one image.",
    )
    monkeypatch.setitem(RESOURCES, "activations", row)
    found = everywhere(tmp_path / "limited", BudgetRequest.of(activations="80%"))
    assert found.pop("axis, JSON") == {"activations_ratio"}
    for name, words in found.items():
        assert {"activations", "activations_ratio"} & words, name
    for name, words in everywhere(tmp_path / "free", BudgetRequest.of(flops="80%")).items():
        if name != "card, text":  # a card has all that it knows
            assert not {"activations", "activations_ratio"} & words, name


def test_trials_that_were_not_scored_on_all_images_have_no_score_in_rows(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 16)
    for row, trial in zip(trial_rows(study), study.trials, strict=True):
        assert (row["loss"] is None) == (trial.state is not TrialState.COMPLETE)
        assert (row["flops"], row["params"]) == (2 * trial.cost.macs, trial.cost.params)


def test_a_finished_network_is_read_off_its_card() -> None:
    entry = network_json(NETWORK, BASE)
    read = network_from_card(entry, NETWORK.mask)
    assert network_json(read, BASE) == entry
    assert (read.cost, read.search, read.test) == (NETWORK.cost, SCORE, NETWORK.test)
    without = network_json(NETWORK, Cost(macs=1_000_000, params=40_000, activations=8_000))
    assert list(without) == ["name", "flops", "params", "activations", "ratios", "search", "test"]
