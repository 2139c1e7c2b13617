"""Runtimes that networks are timed in: PyTorch three ways, ONNX Runtime in float and int8."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from evosearch.calling import Arguments, Inputs, arguments
from evosearch.errors import InputError, unknown_name
from evosearch.export.formats import require_packages, write_onnx
from evosearch.export.onnxfile import open_session
from evosearch.export.quantizing import quantizable, quantize
from evosearch.latency.stopwatch import Runner

CALIBRATED = 4
"""Images that an int8 network is calibrated on where only its speed counts."""


def eager(network: nn.Module, images: Inputs, _threads: int) -> Runner:
    """Runs a network as PyTorch does by itself."""
    return _running(network, arguments(network, images))


def _running(network: Callable[..., Any], images: Arguments) -> Runner:
    def run() -> object:
        with torch.inference_mode():
            return network(*images.args, **images.kwargs)

    return run


def compiled(network: nn.Module, images: Inputs, _threads: int) -> Runner:
    """Runs a network through `torch.compile`; every shape of it is compiled for itself."""
    torch.compiler.reset()
    return _running(torch.compile(network, dynamic=False), arguments(network, images))


def exported(network: nn.Module, images: Inputs, _threads: int) -> Runner:
    """Runs the graph that `torch.export` gives."""
    with _quiet(), torch.no_grad():
        given = arguments(network, images)
        program = torch.export.export(network, given.args, given.kwargs, strict=False)
    return _running(program.module(), given)


def onnxruntime(network: nn.Module, images: Inputs, threads: int) -> Runner:
    """Runs the ONNX file of a network of one tensor in ONNX Runtime, on the CPU."""
    images = _one_tensor(network, images)
    with tempfile.TemporaryDirectory() as folder:
        return file_runner(_written(network, images, Path(folder)), images, threads)


def onnxruntime_int8(network: nn.Module, images: Inputs, threads: int) -> Runner:
    """Runs the same file quantized to int8; what int8 does not take runs in float.

    Activations are calibrated on the first images of the batch: their ranges decide what comes
    out, and not how long it takes.
    """
    images = _one_tensor(network, images)
    with tempfile.TemporaryDirectory() as folder:
        ready = quantizable(_written(network, images, Path(folder)), Path(folder) / "ready.onnx")
        path = ready.path
        if ready.layers:
            path = Path(folder) / "int8.onnx"
            quantize(ready, path, [images[:CALIBRATED]])
        return file_runner(path, images, threads)


def _one_tensor(network: nn.Module, images: Inputs) -> Tensor:
    (tensor,), _ = arguments(network, images)
    assert isinstance(tensor, Tensor)
    return tensor


def _written(network: nn.Module, images: Tensor, folder: Path) -> Path:
    """Returns the network's ONNX file."""
    path = folder / "model.onnx"
    with _quiet():
        write_onnx(network, tuple(images.shape[1:]), path)
    return path


def file_runner(path: Path, images: Tensor, threads: int) -> Runner:
    """Returns what runs an ONNX file once; it is read here, and may go after that."""
    session = open_session(path, threads)
    inputs = {"images": images.numpy()}
    return lambda: session.run(None, inputs)


@final
@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One way to run a network.

    Attributes:
        prepare: takes a network, a batch and the number of CPU threads; returns what runs it.
        package: whose version its speed depends on, beside torch's.
        format: of an exported file, where it runs one; it needs that format's packages.
        cpu_only: whether it runs on the CPU alone.
    """

    prepare: Callable[[nn.Module, Inputs, int], Runner]
    package: str | None = None
    format: str | None = None
    cpu_only: bool = False


RUNTIMES: dict[str, Runtime] = {
    "eager": Runtime(prepare=eager),
    "compile": Runtime(prepare=compiled),
    "exported": Runtime(prepare=exported),
    "onnxruntime": Runtime(
        prepare=onnxruntime, package="onnxruntime", format="onnx", cpu_only=True
    ),
    "onnxruntime-int8": Runtime(
        prepare=onnxruntime_int8, package="onnxruntime", format="onnx", cpu_only=True
    ),
}
"""Every runtime by name."""


def require_runtime(name: str, device: str) -> None:
    """Checks that a runtime is there.

    Raises:
        InputError: there is no such runtime, its packages are missing (names the pip command), or
            it does not run on the device.
    """
    if name not in RUNTIMES:
        raise unknown_name("runtime", name, RUNTIMES)
    runtime = RUNTIMES[name]
    if runtime.format is not None:
        require_packages(runtime.format)
    if runtime.cpu_only and device != "cpu":
        raise InputError(f"runtime {name!r} runs on the CPU here, not on {device!r}")


def runtime_versions(name: str) -> dict[str, str]:
    """Returns the versions of the packages that a runtime's speed depends on."""
    packages = ("torch", RUNTIMES[name].package)
    return {package: version(package) for package in packages if package and find_spec(package)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what exporters tell their developers from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
