"""The settings of strategies in `[search]`: found through their table, checked, and written."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
from pydantic import BaseModel, ConfigDict

import evosearch
from evosearch.config import Sectioned, validated
from evosearch.errors import InputError
from evosearch.run.config import SearchConfig, read_run_config, run_config_to_toml
from evosearch.run.evaluating import criteria_of
from evosearch.run.folder import RunFolder
from evosearch.space.knowledge import Knowledge
from evosearch.space.text import load_space
from evosearch.strategies import STRATEGIES
from evosearch.strategies.fixed_plans import uniform_mask
from tests.test_cli import QUICK


class MineConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = 3


class Mine:
    """A strategy, as far as its settings go."""

    name = "mine"
    Config = MineConfig


def read(toml: str) -> SearchConfig:
    return validated(SearchConfig, tomllib.loads(toml), "space.toml: [search]")


def sections(config: SearchConfig) -> dict[str, object]:
    """Returns the sections of strategies that a config is written with."""
    written = config.model_dump(mode="json", exclude_none=True)
    return {name: own for name, own in written.items() if name in {*STRATEGIES, "mine"}}


def test_only_those_who_search_are_written_with_every_default() -> None:
    startup = {"rates": STRATEGIES["rates"].Config().model_dump() | {"startup": 5}}
    assert sections(read("[rates]\nstartup = 5")) == startup
    baseline = {"round_size": 4, "criterion": "two_step"}
    beside = dict.fromkeys(("random", "uniform", "global"), baseline)
    assert sections(read("baselines = true\n[rates]\nstartup = 5")) == startup | beside
    given = read('strategy = "uniform"\n[layerwise]\nbudgets = 3')
    assert set(sections(given)) == {"uniform", "layerwise"}


def test_the_criterion_of_the_run_holds_unless_the_section_names_its_own() -> None:
    config = read('baselines = true\ncriterion = "l2"\n[uniform]\ncriterion = "fpgm"')
    criteria = {name: getattr(config.settings(name), "criterion", None) for name in STRATEGIES}
    without = dict.fromkeys(("rates", "policy", "stepwise", "layerwise"), None)
    expected = dict.fromkeys(STRATEGIES, "l2") | {"uniform": "fpgm"} | without
    assert criteria == expected
    assert config.criteria == ("l2", "fpgm")
    assert criteria_of(config) == ["fpgm", "l1", "l2"]
    # Who does not search needs no scores.
    assert read('[uniform]\ncriterion = "fpgm"').criteria == ("two_step",)


def test_settings_survive_a_file() -> None:
    config = read('strategy = "genetic"\nbaselines = true\n[layerwise.genetic]\npatience = 7')
    again = read(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    assert again == config
    assert again.settings("layerwise").model_dump()["genetic"]["patience"] == 7
    other = config.model_copy(update={"strategy": "relative"})
    assert other.settings("relative").model_dump() == config.settings("uniform").model_dump()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("trails = 3", "unknown key 'trails': did you mean 'trials'"),
        ("[gentic]", "unknown key 'gentic': did you mean 'genetic'"),
        ("[min]", "unknown key 'min': did you mean 'mine'"),
        ("[rates]\nstartp = 5", "[rates] unknown key 'startp': did you mean 'startup'"),
        ("[mine]\ndeptj = 5", "[mine] unknown key 'deptj': did you mean 'depth'"),
        (
            "[layerwise.genetic]\npatient = 5",
            "[layerwise.genetic] unknown key 'patient': did you mean 'patience'",
        ),
        (
            "[rates]\nstartup = 0",
            "rates.startup: Input should be greater than or equal to 1, got 0",
        ),
        (
            "rates = 3",
            "rates: Input should be a valid dictionary or instance of RatesConfig, got 3",
        ),
        (
            "[genetic]\nshares = [0.1, 0.2]",
            "genetic: shares and survivors must have one entry per partial rung, got {",
        ),
    ],
)
def test_what_is_wrong_in_a_section_is_said_in_one_line(
    toml: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STRATEGIES, "mine", Mine)
    with pytest.raises(InputError) as caught:
        read(toml)
    assert str(caught.value).startswith(f"space.toml: [search]: {message}")
    assert "\n" not in str(caught.value)


def test_settings_of_a_strategy_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    toml = 'strategy = "mine"\n[mine]\ndepth = 4'
    unknown = read(toml)  # as a program that lacks the strategy reads a run that it searched
    assert sections(unknown) == {"mine": {"depth": 4}}
    with pytest.raises(InputError, match="unknown strategy 'mine'"):
        unknown.settings("mine")
    monkeypatch.setitem(STRATEGIES, "mine", Mine)
    assert read(toml).settings("mine") == MineConfig(depth=4)
    assert unknown.settings("mine") == MineConfig(depth=4)


def test_a_baseline_plans_by_its_own_criterion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("quick.toml").write_text(QUICK + '[search.uniform]\ncriterion = "fpgm"\n')
    run = evosearch.search("quick.toml", flops="50%", trials=4, strategy="genetic", baselines=True)
    config = read_run_config(run.folder)
    assert run_config_to_toml(config) == (run.folder / "config.toml").read_text()
    space, knowledge = (
        load_space(run.folder / "space.toml"),
        Knowledge.load(RunFolder(run.folder).knowledge),
    )
    assert sorted(knowledge.scores) == ["fpgm", "l1", "two_step"]
    found = run.baselines["uniform"].trials[0].mask
    assert found == uniform_mask(space, run.study.budget, knowledge.scores["fpgm"])
    assert found != uniform_mask(space, run.study.budget, knowledge.scores["two_step"])
    assert run.study.header.config["search.uniform.criterion"] == "fpgm"
    Path("quick.toml").write_text(QUICK + '[search.uniform]\ncriterion = "fpmg"\n')
    with pytest.raises(InputError, match="did you mean 'fpgm'"):
        evosearch.search("quick.toml", flops="50%", trials=4, baselines=True)


def test_a_config_with_sections_has_a_table_of_them() -> None:
    class Tableless(Sectioned):
        pass

    with pytest.raises(TypeError, match=r"abstract method '?sections"):
        Tableless()  # type: ignore[abstract]
