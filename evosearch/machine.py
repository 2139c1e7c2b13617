"""The machine that a run works on: device, threads, and what its results depend on."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from evosearch.errors import InputError


def resolve_device(name: str) -> str:
    """Returns the device that "auto" stands for; others as they are.

    Raises:
        InputError: torch does not have the device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name!r}: not available here ({reason})") from error
    return name


def environment(threads: int) -> dict[str, Any]:
    """Returns what results depend on beside the config."""
    packages = ("evosearch", "torch", "numpy", "optuna", "deap")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        **{package: version(package) for package in packages},
    }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets the number of CPU threads that torch uses inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
