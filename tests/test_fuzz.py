"""Random input to the command line: exit 0, or 2 with one line; never a half-made run."""

import copy
import io
import os
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evosearch.cli import main
from evosearch.study.study import Study
from tests.test_cli import QUICK, evosearch, is_progress

SPACE = tomllib.loads(
    QUICK.replace("width = 8", "width = 4").replace("epochs = 3", "epochs = 1")
    + '\n[search]\nstrategy = "random"\ntrials = 2\n'
)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def call(*arguments: str) -> Outcome:
    """Runs the command line in this process; anything but an exit is an error of the test."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["evosearch", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as ended:
        return Outcome(int(ended.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("main() returned")


def files() -> dict[Path, int]:
    return {
        path: path.stat().st_size
        for path in Path().rglob("*")
        if path.is_file() and path.parts[0] != "cache"
    }


def check(*arguments: str) -> Outcome:
    """Runs the command line and holds it to its word; removes what it made."""
    before = files()
    outcome = call(*arguments)
    assert outcome.code in (0, 2), (arguments, outcome)
    made = set(files()) - set(before)
    if outcome.code == 2:
        lines = [line for line in outcome.err.strip().splitlines() if not is_progress(line)]
        assert len(lines) == 1, (arguments, lines)
        assert lines[0].startswith("evosearch: "), (arguments, lines)
        assert len(lines[0]) > len("evosearch: ") + 10, (arguments, lines)
        assert "Traceback" not in outcome.err
        if outcome.out.strip():
            assert arguments[:1] == ("inspect",), (arguments, outcome.out)
        assert made <= {Path("run/lock"), Path("run/run.log")}, (arguments, made)
    for folder in {path.parts[0] for path in made} - {"run"}:
        if (Path(folder) / "config.toml").exists():
            Study.open(Path(folder))
        assert "partial" not in folder
        shutil.rmtree(folder) if Path(folder).is_dir() else Path(folder).unlink()
    if set(files()) | {Path("run/run.log")} != set(before) | {Path("run/run.log")}:
        shutil.rmtree("run")
        shutil.copytree("spare", "run")
    return outcome


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a space and a run of two trials, and a copy of it."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "quick.toml").write_text(tomli_w.dumps(SPACE))
    done = evosearch("search", "quick.toml", "--flops", "30%..70%", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "run", folder / "spare")
    before = {name: os.environ.get(name) for name in ("EVOSEARCH_CACHE", "COLUMNS")}
    os.environ.update(EVOSEARCH_CACHE=str(folder / "cache"), COLUMNS="160")
    with chdir(folder):
        yield folder
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """Runs a test on so many random examples, always the same ones."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# Spaces

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SCALARS = st.one_of(
    st.sampled_from([-(10**30), -1, 0, 1, 2, 3]),
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1e308, float("nan"), float("inf")]),
    st.booleans(),
    TEXT,
    st.sampled_from(["os:getcwd", "builtins:print", "x.py:f", ":", "a:b:c", "digits", "../x"]),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(TEXT, SCALARS, max_size=2),
)
KEYS = st.one_of(TEXT, st.sampled_from(["epoch", "trails", "modle", "seed", "augment", "mean"]))


LIKE = {
    int: st.sampled_from([-(10**30), -1, 0, 1, 2, 3, 4, 10**30]),
    str: st.sampled_from(["", "digits", "cifar10", "os:getcwd", "x.py:f", ":", "a:b:c", "../x"]),
    list: st.lists(st.sampled_from([-1, 0, 1, 2, 8, 9, 1.5, "a", 10**30]), max_size=4),
}
"""Values of the type that belongs in a place."""
ENDLESS = {"epochs", "trials"}
"""Settings that a large number of is right, and takes for ever."""


def places(table: dict[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [(*at, key) for key in table] * (1 if at else 0)
    for key, value in table.items():
        if isinstance(value, dict):
            found += places(value, (*at, key))
    return found or [(key,) for key in table]


@st.composite
def spaces(draw: st.DrawFn) -> str:
    """A space file with one to three things wrong, or torn, or none at all."""
    kind = draw(st.sampled_from(["edited"] * 10 + ["torn", "noise"]))
    if kind == "noise":
        return draw(st.text(max_size=40))
    space = copy.deepcopy(SPACE)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        *path, key = draw(st.sampled_from(places(space)))
        table = space
        for part in path:
            table = table[part]
        edit = draw(st.sampled_from(["like"] * 6 + ["replace", "remove", "add", "rename"]))
        if edit == "like" and type(table[key]) in LIKE:
            value = draw(LIKE[type(table[key])])
            table[key] = 2 if value == 10**30 and key in ENDLESS else value
        elif edit in ("like", "replace"):
            table[key] = draw(VALUES)
        elif edit == "add":
            table[draw(KEYS)] = draw(VALUES)
        else:
            value = table.pop(key)
            if edit == "rename":
                table[key[:-1] + draw(st.sampled_from(["x", "s", ""]))] = value
        if not space:
            break
    text = tomli_w.dumps(space)
    return text[: draw(st.integers(0, len(text)))] if kind == "torn" else text


def check_space(text: str) -> None:
    Path("odd.toml").write_text(text, encoding="utf-8", errors="replace")
    check("inspect", "odd.toml")
    check("search", "odd.toml", "--flops", "50%", "--trials", "1", "--out", "new")


@fuzzed(40)
@given(spaces())
def test_odd_spaces(text: str) -> None:
    check_space(text)


@pytest.mark.slow
@fuzzed(500)
@given(spaces())
def test_many_odd_spaces(text: str) -> None:
    check_space(text)


# Budgets

NUMBERS = st.one_of(
    st.integers(-5, 10**12).map(str),
    st.floats().map(str),
    st.sampled_from(["", "1e400", "-0", "٣", "0x10", "1_000", " 5", "5 ", "+7", "½", ".", "1e-9"]),
)
SHARES = st.integers(1, 130).map("{}%".format)
AMOUNTS = st.one_of(
    SHARES,
    SHARES,
    st.integers(1, 10**6).map(str),
    st.tuples(NUMBERS, st.sampled_from(["", "%", "M", "G", "K", "k", "m", "%%", "MM", "x"])).map(
        "".join
    ),
    TEXT,
)
BUDGETS = st.one_of(
    AMOUNTS,
    st.tuples(AMOUNTS, st.sampled_from(["..", "..", "...", "-"]), AMOUNTS).map("".join),
)


def check_budget(flops: str, params: str) -> None:
    check("pareto", "run", f"--at=flops={flops}")
    check("pareto", "run", f"--at=flops={flops},params={params}", "--json")
    check("resume", "run", f"--flops={flops}", f"--params={params}", "--trials", "2")


@fuzzed(15)
@given(BUDGETS, BUDGETS)
def test_odd_budgets(flops: str, params: str) -> None:
    check_budget(flops, params)


@pytest.mark.slow
@fuzzed(500)
@given(BUDGETS, BUDGETS)
def test_many_odd_budgets(flops: str, params: str) -> None:
    check_budget(flops, params)


# Command lines

SEARCH = ("--flops", "--params", "--accuracy-drop", "--trials", "--seconds")
COMMANDS = {
    "inspect": ("quick.toml", ["--json"]),
    "search": (
        "quick.toml",
        [*SEARCH, "--strategy", "--seed", "--device", "--baselines", "--out"],
    ),
    "resume": ("run", list(SEARCH)),
    "pareto": ("run", ["--at", "--x", "--json", "--plot", "--evaluate"]),
    "cut": ("quick.toml", ["--flops", "--params", "--latency", "--at", "--pick", "--to"]),
    "finetune": ("run", ["--pick", "--at", "--epochs"]),
    "export": ("run", ["--to"]),
    "compare": ("run", ["--x", "--json", "--plot"]),
    "report": ("run", ["--html", "--x"]),
    "space": ("new", ["--input", "--out"]),
    "train": ("quick.toml", []),
}
PLACES = ("run", "quick.toml", "nowhere", ".", "", "/", "cache", "a/b/c", "new")
WORDS = st.one_of(
    st.sampled_from([*PLACES, *COMMANDS, "--help", "--", "-", "-x"]),
    st.sampled_from(["-1", "0", "1", "2", "50%", "30%..60%", "knee", "best", "rates", "rate"]),
    st.sampled_from(["1x8x8", "8", "flops=50%", "params=80%", "nan", "inf", "flops", "random"]),
    st.sampled_from(["torchvision:resnet", "no.module:f", "evosearch.models.zoo:digits"]),
    TEXT,
)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with options of its own, nearly always, and values that may be anything."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    place, options = COMMANDS[command]
    words = [command]
    for own in (place, *draw(st.lists(st.sampled_from(options or ["--json"]), max_size=3))):
        words.append(own if draw(st.integers(0, 9)) else draw(WORDS))
        if own.startswith("--") and own not in ("--json", "--baselines", "--evaluate"):
            words.append(draw(WORDS))
    return words + draw(st.sampled_from([[], [], [], ["run"], ["--flops", "50%"], ["quick.toml"]]))


@fuzzed(60)
@given(lines())
def test_odd_command_lines(words: list[str]) -> None:
    check(*words)


@pytest.mark.slow
@fuzzed(500)
@given(lines())
def test_many_odd_command_lines(words: list[str]) -> None:
    check(*words)
