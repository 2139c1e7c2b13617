"""The machine that a run works on: device, threads, and what its results depend on."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evosearch.errors import InputError

_FLAGS = ("amx", "asimd", "avx", "f16c", "fma", "sse4", "sve")
"""What the names of CPU flags begin with that the arithmetic of a network depends on."""
_NO_MATTER = ("date", "platform")


def library_versions() -> dict[str, str]:
    """Returns the versions of what decodes images and computes with them, by package.

    Without the suffix of a build ("+cpu"): builds of one version agree but for rounding.
    """
    return {name: version(name).partition("+")[0] for name in ("torch", "torchvision", "pillow")}


def resolve_device(name: str) -> str:
    """Returns the device that "auto" stands for; others as they are. It is made deterministic.

    Raises:
        InputError: torch does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name!r}: not available here ({reason})") from error
    make_deterministic(name)
    return name


def take_gpu(device: str, worker: int) -> None:
    """Gives a worker process a GPU of its own: from here on "cuda" means that one.

    Where there are more workers than GPUs, they share them in turn. A device with an index, such
    as "cuda:1", stays what it is.

    Args:
        device: that the worker is to use, one of torch's.
        worker: its number among the workers of this machine.

    Raises:
        InputError: this process sees no GPU.
    """
    if device == "cuda":
        if not torch.cuda.device_count():
            raise InputError(
                f"the run is on {device!r}, and a worker on {platform.node()} sees no CUDA device:"
                " start every worker where there is one"
            )
        torch.cuda.set_device(worker % torch.cuda.device_count())


def make_deterministic(device: str) -> None:
    """Makes a GPU give the same results every time, to the last bit, until this process ends.

    To be called before anything is computed on it. Float32 is float32 then, not TF32. An operator
    that has no such algorithm warns of it. A CPU needs none of this: with the same number of
    threads it does so anyway.
    """
    if torch.device(device).type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn: Any = torch.backends.cudnn
    cudnn.deterministic = True
    cudnn.benchmark = False
    cudnn.conv.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def device_name(device: str) -> str:
    """Returns what people call a device of torch's, with what its speed depends on."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpu = _cpu()
    name = cpu.get("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} CPUs, {torch.backends.cpu.get_cpu_capability()}"


def environment(threads: int) -> dict[str, Any]:
    """Returns what results depend on beside the config."""
    packages = ("evosearch", "torch", "numpy", "optuna", "deap")
    cpu = _cpu()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_flags": sorted(f for f in cpu.get("flags", "").split() if f.startswith(_FLAGS)),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        **{package: version(package) for package in packages},
    }


def changes_since(path: Path, threads: int) -> list[str]:
    """Returns what results depend on and is otherwise than a run began with.

    Args:
        path: of the file that says what it began with; without one there is no change.
        threads: of this session.

    Returns:
        One text each, such as "torch was 2.9.0, is 2.10.0".
    """
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        return _differences(begun, environment(threads))
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def _differences(begun: dict[str, Any], now: dict[str, Any]) -> list[str]:
    changes = []
    for key, is_now in now.items():
        was = begun.get(key, is_now)
        if was == is_now or key in _NO_MATTER:
            continue
        if isinstance(was, list) and isinstance(is_now, list):
            gone, come = sorted(set(was) - set(is_now)), sorted(set(is_now) - set(was))
            changes.append(f"{key}: without {gone}, with {come}")
        else:
            changes.append(f"{key} was {was}, is {is_now}")
    return changes


def _cpu() -> dict[str, str]:
    """Returns what the system says of the first CPU, where it says anything."""
    entries: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, colon, value = line.partition(":")
            if not colon:
                break
            entries[key.strip()] = value.strip()
    entries.setdefault("flags", entries.get("Features", ""))  # what ARM calls them
    return entries


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets the number of CPU threads that torch uses inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def torch_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds torch's own generators inside the block and puts them back after it.

    For draws that take no generator: initial weights and dropout.
    """
    place = torch.device(device)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if place.type == "cuda":
            with torch.cuda.device(place):
                torch.cuda.manual_seed(seed)
        yield


def device_of(model: nn.Module) -> torch.device:
    """Returns where a model's parameters are; the CPU for a model without any."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
