"""A live value's digest is of what it does: the same in every process, another after any edit."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from evosearch.livecode import value_digest
from evosearch.tasks.detection import detection
from evosearch.tasks.regression import REGRESSION
from evosearch.tasks.segmentation import segmentation
from evosearch.tasks.task import Task

CODE = """
SCALE = 2.0
OTHER = 1
def helper(x):
    return x * SCALE
def loss(output, target, power=2):
    return helper(output - target) ** power
"""
"""Code as it is typed into a notebook: no file has it."""


def typed_in(code: str = CODE, name: str = "loss") -> Any:
    """Returns what code that was typed in defines."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    return names[name]


SAME = {
    "comment": ("def helper", "# a comment\ndef helper"),
    "docstring": ("    return x *", '    "It scales."\n    return x *'),
    "layout": ("(x):\n    return", "(x):\n\n\n    return"),
    "a global that it does not read": ("OTHER = 1", "OTHER = 2"),
}
DIFFERENT = {
    "body": ("** power", "** (power + 1)"),
    "constant of a function that it calls": ("x * SCALE", "x * SCALE * 1.5"),
    "global of a function that it calls": ("SCALE = 2.0", "SCALE = 3.0"),
    "default": ("power=2", "power=4"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_changes_nothing_keeps_the_digest(name: str) -> None:
    assert value_digest(typed_in(CODE.replace(*SAME[name]))) == value_digest(typed_in())


@pytest.mark.parametrize("name", DIFFERENT)
def test_an_edit_changes_the_digest(name: str) -> None:
    assert value_digest(typed_in(CODE.replace(*DIFFERENT[name]))) != value_digest(typed_in())


def closing_over(value: Any) -> Callable[[float], Any]:
    return lambda x: x * value


class Weighted:
    """A loss that is an instance."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def __call__(self, x: Any) -> Any:
        return x * self.weights

    def method(self, x: Any) -> Any:
        return x + self.weights


class Slotted:
    """A loss whose weight is in no dict."""

    __slots__ = ("_weight",)

    def __init__(self, weight: float) -> None:
        self._weight = weight


class Framed:
    """What is no array, and gives one, as a table does."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._values, dtype=dtype)


@dataclass(frozen=True)
class Pair:
    """A value that holds functions."""

    first: Any
    second: Any


DISTINCT: list[Callable[[], Any]] = [
    lambda: closing_over(1.0),
    lambda: closing_over(2.0),
    lambda: closing_over(torch.tensor([1.0, 2.0])),
    lambda: closing_over(torch.tensor([1.0, 3.0])),
    lambda: closing_over(np.array([1.0, 2.0])),
    lambda: Weighted(1),
    lambda: Weighted(2),
    lambda: Weighted(2).method,
    lambda: Weighted,
    lambda: partial(typed_in(), power=2),
    lambda: partial(typed_in(), power=3),
    lambda: functional.cross_entropy,
    lambda: functional.mse_loss,
    lambda: math.sqrt,
    lambda: math.exp,
    lambda: nn.CrossEntropyLoss(),
    lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    lambda: nn.MSELoss(),
    lambda: Slotted(1.0),
    lambda: Slotted(2.0),
    lambda: Framed(1, 2),
    lambda: Framed(1, 3),
    lambda: torch.tensor([1 + 2j]),
    lambda: torch.tensor([1 + 3j]),
    lambda: torch.tensor([2**60]),
    lambda: torch.tensor([2**60 + 1]),
    lambda: np.array([{"a": 1}, None], dtype=object),
    lambda: np.array([{"a": 2}, None], dtype=object),
    lambda: {typed_in(): 1},
    lambda: {typed_in(CODE.replace("SCALE = 2.0", "SCALE = 3.0")): 1},
    lambda: Pair(1, 2),
    lambda: Pair(2, 1),
    lambda: {"a": 1, "b": {2, 3}},
    lambda: {"a": 1, "b": {2, 4}},
    lambda: [1, 2],
    lambda: (1, 2),
    lambda: REGRESSION,
    lambda: segmentation(255),
    lambda: segmentation(0),
    lambda: detection(closing_over(1.0), closing_over(2.0)),
    lambda: detection(closing_over(1.0), closing_over(3.0)),
    lambda: Task(loss=typed_in(), metric=closing_over(1.0)),
]


def test_values_are_told_apart_and_equal_ones_are_not() -> None:
    digests = [value_digest(make()) for make in DISTINCT]
    assert len(set(digests)) == len(digests)
    assert [value_digest(make()) for make in DISTINCT] == digests


def test_what_holds_itself_has_a_digest() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    other: list[Any] = [2]
    other.append(other)
    assert value_digest(loop) != value_digest(other)

    def recursive(depth: int) -> int:
        return depth and recursive(depth - 1)

    assert value_digest(recursive) == value_digest(recursive)


def test_an_edit_of_a_module_that_it_reads_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "livecode_helper.py"
    file.write_text("def scaled(x):\n    return 2 * x\n")
    code = "import livecode_helper\ndef loss(x):\n    return livecode_helper.scaled(x)\n"
    before = value_digest(typed_in(code))
    file.write_text("def scaled(x):\n    return 3 * x\n")
    assert value_digest(typed_in(code)) != before
    del sys.modules["livecode_helper"]


def test_another_process_finds_the_same_digest() -> None:
    program = (
        f"{CODE}\nimport numpy as np\nfrom evosearch.livecode import value_digest\n"
        "kept = {'names': {'b', 'a', 'c'}, 'weights': np.arange(3.0), loss: {loss, helper},\n"
        "    'objects': np.array([loss, 'a'])}\n"
        "def wrapped(x):\n    return loss(x, kept) if x else {'u', 'v', 'w'}\n"
        "print(value_digest(wrapped))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
