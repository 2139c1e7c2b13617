"""The steps of `evosearch/strategies/README.md`, followed as they are written.

That the example keeps the contract of a strategy, `test_contract` tests.
"""

import tomllib
from pathlib import Path

import pytest

import evosearch
from evosearch.run.config import SearchConfig
from evosearch.strategies import STRATEGIES
from tests.readmes import code_blocks, inline_code
from tests.strategies.example import EXAMPLE, example
from tests.test_cli import QUICK
from tests.test_cli import evosearch as command


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, EXAMPLE, example())


def settings() -> str:
    (found,) = code_blocks("strategies", "toml")
    return found


def test_the_settings_reach_the_example() -> None:
    config = SearchConfig.model_validate(tomllib.loads(settings())["search"])
    assert config.strategy == EXAMPLE
    expected = {"round_size": 4, "elite": 4, "scale": 0.5, "criterion": "l2"}
    assert config.settings(EXAMPLE).model_dump() == expected


def test_the_example_searches_by_name_and_is_shown_where_it_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    section = settings().replace(f'strategy = "{EXAMPLE}"\n', "")
    Path("quick.toml").write_text(QUICK + section)
    call = inline_code("strategies", "evosearch.search(").replace(
        "space,", '"quick.toml", trials=6,'
    )
    run = eval(call, {"evosearch": evosearch})

    written = tomllib.loads((run.folder / "config.toml").read_text())["search"]
    assert written[EXAMPLE] == {"round_size": 4, "elite": 4, "scale": 0.5, "criterion": "l2"}
    assert not {"rates", "genetic", "layerwise"} & set(written)
    assert {t.genome["operator"] for t in run.study.trials} == {"step"}
    assert all(t.violation(run.study.budget) == 0 for t in run.study.trials)
    assert len(evosearch.resume(run.folder, trials=9).study.trials) == 9

    # The command line has no such row: it shows the run, and says why it cannot go on with it.
    shown = command("pareto", str(run.folder), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    refused = command("resume", str(run.folder), "--trials", "12", cwd=tmp_path)
    assert refused.returncode == 2
    assert "unknown strategy 'climb'" in refused.stderr
