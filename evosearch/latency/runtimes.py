"""What runs a network: PyTorch as it is, compiled or exported, or ONNX Runtime."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from evosearch.errors import InputError, unknown_name
from evosearch.export.formats import require_packages, write_onnx
from evosearch.latency.timing import Runner

Prepare = Callable[[nn.Module, Tensor, int], Runner]
"""Takes a network, a batch and the number of CPU threads; returns what runs it once."""


def eager(network: nn.Module, images: Tensor, _threads: int) -> Runner:
    """Runs a network as PyTorch does by itself."""

    def run() -> object:
        with torch.inference_mode():
            return network(images)

    return run


def compiled(network: nn.Module, images: Tensor, threads: int) -> Runner:
    """Runs a network through `torch.compile`; every shape of it is compiled for itself."""
    torch.compiler.reset()
    return eager(torch.compile(network, dynamic=False), images, threads)  # type: ignore[arg-type]


def exported(network: nn.Module, images: Tensor, threads: int) -> Runner:
    """Runs the graph that `torch.export` gives."""
    with _quiet(), torch.no_grad():
        program = torch.export.export(network, (images,), strict=False)
    return eager(program.module(), images, threads)


def onnxruntime(network: nn.Module, images: Tensor, threads: int) -> Runner:
    """Runs the network's ONNX file in ONNX Runtime, on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with _quiet():
            write_onnx(network, tuple(images.shape[1:]), path)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {"images": images.numpy()}
    return lambda: session.run(None, inputs)


RUNTIMES: dict[str, Prepare] = {
    "eager": eager,
    "compile": compiled,
    "exported": exported,
    "onnxruntime": onnxruntime,
}


def require_runtime(name: str, device: str) -> None:
    """Checks that a runtime is there.

    Raises:
        InputError: there is no such runtime, its packages are missing (names the pip command), or
            it does not run on the device.
    """
    if name not in RUNTIMES:
        raise unknown_name("runtime", name, RUNTIMES)
    if name == "onnxruntime":
        require_packages("onnx")
        if device != "cpu":
            raise InputError(f"runtime 'onnxruntime' runs on the CPU here, not on {device!r}")


def runtime_versions(name: str) -> dict[str, str]:
    """Returns the versions of the packages that a runtime's speed depends on."""
    packages = ["torch", *(["onnxruntime"] if name == "onnxruntime" else [])]
    return {package: version(package) for package in packages if find_spec(package)}


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
