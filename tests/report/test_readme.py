"""The steps of `evosearch/report/README.md`, followed as they are written."""

from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from evosearch.report import columns
from evosearch.report.compare import Comparison
from evosearch.report.pagedata import page_json
from evosearch.report.pareto import ParetoView
from evosearch.report.trials import trial_rows
from tests.readmes import code_blocks
from tests.report.toyrun import toy_run


def shown(renderable: RenderableType) -> str:
    console = Console(width=160, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_example_is_a_column_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = code_blocks("report", "python")
    assert len(code.splitlines()) <= 16
    monkeypatch.setattr(columns, "MEASURED", columns.MEASURED)
    exec(compile(code, "README.md", "exec"), {})

    study = toy_run(tmp_path / "run", 24)
    toy_run(tmp_path / "run" / "baselines" / "random", 16, seed=1, strategy="random")
    toy_run(tmp_path / "other", 16, seed=2)
    kept = {trial.number: sum(trial.mask.widths.values()) / 26 for trial in study.trials}
    member = study.front().members[0].number

    view = ParetoView.read(tmp_path / "run")
    assert "kept, %" in shown(view.render())
    content, page = view.to_json(), page_json(view)
    assert content["references"][0]["channel_keep_ratio"] == 1
    assert content["front"][0]["channel_keep_ratio"] == kept[member]
    assert all("channel_keep_ratio" in row for row in content["baselines"]["random"]["front"])
    assert {row["trial"]: row["channel_keep_ratio"] for row in page["dominated"]}.items() <= (
        kept.items()
    )
    for table in ("members", "references"):
        assert "channels kept, %" in page["tables"][table]["heads"]
    place = page["heads"].index("channels kept, %")
    assert page["cells"]["front"][0][place] == f"{100 * kept[member]:.1f}"

    assert {row["trial"]: row["channel_keep_ratio"] for row in trial_rows(study)} == kept
    comparison = Comparison.read([tmp_path / "run", tmp_path / "other"])
    assert "kept, %" in shown(comparison.render())
    assert comparison.to_json()["runs"][0]["front"][0]["channel_keep_ratio"] == kept[member]
