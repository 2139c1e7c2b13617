"""Commands and functions: one of each, with the same parameters, written once."""

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import typer

import evosearch
from evosearch import api
from evosearch.cli import app
from evosearch.cli.parameters import parameter_help
from evosearch.errors import InputError
from evosearch.latency.model import LatencyConfig
from evosearch.run.config import SearchConfig
from evosearch.space.resources import RESOURCES
from evosearch.training.distillation import FinetuneConfig
from tests.test_cli import InProcess, run  # noqa: F401  (a fixture)

FUNCTIONS = {
    "search": evosearch.search,
    "resume": evosearch.resume,
    "pareto": evosearch.pareto,
    "report": evosearch.write_report,
    "compare": evosearch.compare,
    "cut": evosearch.cut,
    "finetune": evosearch.finetune,
    "measure": evosearch.measure_artifact,
    "export": evosearch.export_artifact,
    "inspect": evosearch.inspect,
    "profile": evosearch.profile,
    "space new": evosearch.new_space,
    "train": evosearch.train,
    "criteria": evosearch.list_criteria,
    "recipes": evosearch.list_recipes,
}
AMOUNTS = {"accuracy_drop", *(resource.option for resource in RESOURCES.values())}
"""Parameters of budgets."""
PRINTING = {"as_json", "follow", "help"}
"""Parameters of commands that say how to print what a function returns."""
OBJECTS = {
    "search": ["model", "train", "test", "held_out", "task", "sections"],
    "cut": ["model", "train", "test", "held_out", "task", "sections"],
    "train": ["model", "train", "test", "held_out", "task", "sections"],
    "inspect": ["model", "input", "sections"],
}
"""Function -> what it takes in place of a space file; no command line has objects."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yields every command with its whole name."""
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", c) for inner, c in command.commands.items())
        else:
            yield name, command


COMMANDS = dict(commands())


def modules() -> set[str]:
    """Returns the modules of the package, which become attributes as they are imported."""
    return {module.name for module in pkgutil.iter_modules(evosearch.__path__)}


def test_every_command_has_a_function_and_every_function_a_command() -> None:
    assert set(COMMANDS) == set(FUNCTIONS)
    public = {getattr(evosearch, name) for name in evosearch.__all__}
    functions = {value for value in public if inspect.isfunction(value)}
    assert functions - set(FUNCTIONS.values()) == {evosearch.load_run, evosearch.load_artifact}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_command_takes_what_its_function_takes(name: str) -> None:
    expected = [
        parameter
        for parameter in inspect.signature(FUNCTIONS[name]).parameters.values()
        if parameter.name not in ("callbacks", *OBJECTS.get(name, ()))
    ]
    found = [p for p in COMMANDS[name].params if p.name not in PRINTING]
    assert [p.name for p in found] == [p.name for p in expected]
    for parameter, shown in zip(expected, found, strict=True):
        by_position = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert shown.param_type_name == ("argument" if by_position else "option")
        assert shown.required == (parameter.default is parameter.empty or by_position)
        if not shown.required:
            assert shown.default == parameter.default
        assert re.fullmatch(r"[A-Z0-9].+\.", shown.help)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_objects_take_the_place_of_a_space_file_and_nothing_else(name: str) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    taken = {p for p in parameters if p in OBJECTS["search"]}
    assert taken <= set(OBJECTS.get(name, ()))
    by_position = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    optional = [p.name for p in by_position if p.default is None]
    assert optional == ([by_position[0].name] if name in OBJECTS else [])


DEFAULTS: dict[str, dict[str, object]] = {
    "search": {
        **{
            name: getattr(SearchConfig(), name)
            for name in ("strategy", "criterion", "trials", "seed", "device")
        },
        "runtime": LatencyConfig().runtime,
        "batch": LatencyConfig().batch,
    },
    "profile": {**LatencyConfig().model_dump(), "device": SearchConfig().device},
    "finetune": {"epochs": FinetuneConfig().epochs},
    "measure": {**LatencyConfig().model_dump(), "device": SearchConfig().device},
}
"""Command -> what its parameters are where neither it nor the space file says so."""


def test_help_names_the_defaults() -> None:
    for name, values in DEFAULTS.items():
        helps = {parameter.name: parameter.help for parameter in COMMANDS[name].params}
        for parameter, value in values.items():
            shown = re.escape(str(value))
            pattern = rf"\(default {shown}\b|\b{shown} \(default\)"
            assert re.search(pattern, helps[parameter]), (name, parameter, helps[parameter])


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_has_a_default_or_is_off_without_one(name: str) -> None:
    off = {*AMOUNTS, "cluster", "plot", "at", "to", "space"}
    for parameter in COMMANDS[name].params:
        if parameter.required or parameter.is_flag or parameter.name in off:
            continue
        assert parameter.default is not None or "default" in parameter.help, parameter.name


def test_help_lists_commands_in_the_order_of_the_work() -> None:
    listed = [name for name in COMMANDS if name in ("inspect", "search", "pareto", "finetune")]
    assert listed == ["inspect", "search", "pareto", "finetune"]


def test_every_resource_is_a_keyword_and_an_option() -> None:
    for name in ("search", "resume", "train"):
        signature = inspect.signature(FUNCTIONS[name])
        for resource in RESOURCES.values():
            parameter = signature.parameters[resource.option]
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is None
        assert not [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]


def test_help_is_what_the_docstring_says() -> None:
    def documented(first: str, second: int) -> None:
        """Does something.

        Args:
            first: whatever there is
                to say: a line and more.
            second: more of it

        Raises:
            third: not a parameter.
        """

    assert parameter_help(documented) == {
        "first": "Whatever there is to say: a line and more.",
        "second": "More of it.",
    }


def test_names_are_listed_and_hide_no_module() -> None:
    assert evosearch.__all__ == api.__all__
    assert {name for name in dir(evosearch) if name[0] != "_"} - modules() == {*evosearch.__all__}
    everything: dict[str, Any] = {}
    exec("from evosearch import *", everything)
    assert set(evosearch.__all__) <= set(everything)
    assert [name for name in evosearch.__all__ if find_spec(f"evosearch.{name}")] == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evosearch.search("s.toml", flops="50%", trials=0), "--trials 0: expected 1 or"),
        (lambda: evosearch.search("s.toml", flops="50%", seed=-1), "--seed -1: expected 0 or"),
        (lambda: evosearch.resume("run", seconds=-0.5), "--seconds -0.5: expected 0 or more"),
        (lambda: evosearch.profile("s.toml", threads=0), "--threads 0: expected 1 or more"),
        (lambda: evosearch.search("s.toml", flop="50%"), "unknown budget 'flop': did you mean"),
        (lambda: evosearch.search("s.toml"), "needs a budget"),
        (lambda: evosearch.train("s.toml", recipe="snip"), "--recipe is for a training under a"),
        (
            lambda: evosearch.measure_artifact("a", runtime="eager"),
            r"--runtime 'eager': expected a list, \['eager'\]",
        ),
        (
            lambda: evosearch.export_artifact("a", to="b", keep_float="layer1.*"),
            "--keep-float 'layer1",
        ),
        (lambda: evosearch.load_run("none"), "not a run"),
        (lambda: evosearch.pareto("run", at="flops=9%", plot="a.png"), "leave --x, --plot"),
        (lambda: evosearch.export_artifact("a"), "--to names the new folder"),
        (
            lambda: evosearch.export_artifact("a", to="b", quantize="int8"),
            "--quantize int8 is for --format onnx, not safetensors",
        ),
        (
            lambda: evosearch.export_artifact("a", to="b", format="onnx", quantize="int4"),
            "unknown quantization 'int4': did you mean 'int8'",
        ),
        (
            lambda: evosearch.export_artifact("a", to="b", format="onnx", keep_float=["fc"]),
            "--keep-float is for --quantize int8",
        ),
    ],
)
def test_bad_values_are_refused_in_python_too(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_what_is_given_arrives(
    run: InProcess,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: dict[str, Any] = {}

    def recorded(**given: Any) -> None:
        taken.update(given)
        raise InputError("recorded")

    monkeypatch.setattr("evosearch.api.search", recorded)
    options = ["--flops", "50%", "--accuracy-drop", "1.5", "--trials", "7", "--baselines"]
    options += ["--out", "o", "--batch", "2"]
    done = run("search", "s.toml", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "evosearch: recorded\n"
    given = {name: value for name, value in taken.items() if value is not None}
    assert given.pop("callbacks") is not None
    assert given == {
        "space": Path("s.toml"),
        "flops": "50%",
        "accuracy_drop": 1.5,
        "trials": 7,
        "baselines": True,
        "out": Path("o"),
        "anyway": False,
        "batch": 2,
    }
