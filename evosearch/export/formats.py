"""Compact networks for other runtimes: ONNX, and PyTorch's exported programs (`.pt2`).

A file is written, run in a fresh process on batches of two sizes, and kept only if its outputs are
those of the PyTorch network; the largest difference goes into the card. A `.pt2` file is loaded
only there, right after writing: its loader unpickles, so evosearch never loads a foreign one.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.errors import EvosearchError, InputError
from evosearch.export.artifact import Artifact, write_card
from evosearch.machine import environment
from evosearch.models.build import ModelConfig, build_model

FILES = {"onnx": "model.onnx", "pt2": "model.pt2"}
"""Format -> name of the file."""
BATCHES = (1, 7)
"""Sizes of the batches that an exported file is checked on."""
TOLERANCE = 1e-4
"""Largest difference of outputs allowed, as a share of the largest output, or of one."""
CHECK = "check.npz"

_RUN = {
    "onnx": (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "run = lambda images: session.run(None, {'images': images})[0]\n"
    ),
    "pt2": (
        "import sys, numpy, torch\n"
        "network = torch.export.load(sys.argv[1]).module()\n"
        "run = lambda images: network(torch.from_numpy(images)).detach().numpy()\n"
    ),
}
_COMPARE = (
    "checks = numpy.load(sys.argv[2], allow_pickle=False)\n"
    "pairs = [(run(checks[f'images{n}']), checks[f'outputs{n}']) for n in %r]\n"
    "print(max(float(abs(mine - theirs).max()) for mine, theirs in pairs))\n"
)


def export_network(
    artifact: Artifact, kind: str, target: Path, space_folder: Path = Path()
) -> float:
    """Exports an artifact's network to a new folder, with its card, and checks it.

    Args:
        artifact: the compact network on disk.
        kind: "onnx" or "pt2".
        target: the folder; appears whole or not at all.
        space_folder: where the space file lies that names the network's builder.

    Returns:
        The largest absolute difference between outputs.

    Raises:
        InputError: the target exists, a package is missing, or the model takes several inputs.
        EvosearchError: the exported file's outputs are not the network's.
    """
    if target.exists():
        raise InputError(f"{target}: exists already; name a new folder")
    require_packages(kind)
    config = ModelConfig.model_validate(artifact.plan["model"])
    if not config.input or isinstance(config.input[0], list | tuple):
        raise InputError("export writes networks of one image tensor; this one takes several")
    network = artifact.load(lambda: build_model(_unweighted(config), space_folder))
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(network, kind, tuple(config.input), partial / FILES[kind])
        _write_checks(network, tuple(config.input), partial / CHECK)
        difference, largest = verify(partial)
        card = {
            **artifact.card,
            "export": {
                "format": kind,
                "file": FILES[kind],
                "largest_difference": difference,
                "largest_output": largest,
                "batches_checked": list(BATCHES),
                "environment": environment(torch.get_num_threads()),
            },
        }
        write_card(partial, card)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return difference


def verify(folder: Path) -> tuple[float, float]:
    """Runs an exported file in a fresh process on the batches that were kept beside it.

    Args:
        folder: holds the file and its checks.

    Returns:
        The largest absolute difference to the PyTorch network's outputs, and the largest output.

    Raises:
        InputError: the folder holds no exported file.
        EvosearchError: the file does not run, or its outputs differ.
    """
    kind = next((k for k, name in FILES.items() if (folder / name).is_file()), None)
    if kind is None or not (folder / CHECK).is_file():
        raise InputError(f"{folder}: holds no exported network with its checks")
    require_packages(kind)
    code = _RUN[kind] + _COMPARE % (BATCHES,)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / FILES[kind]), str(folder / CHECK)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise EvosearchError(f"{folder / FILES[kind]}: does not run: {reason}")
    difference = float(done.stdout)
    with np.load(folder / CHECK, allow_pickle=False) as checks:
        largest = max(float(np.abs(checks[f"outputs{size}"]).max()) for size in BATCHES)
    if not difference <= TOLERANCE * max(1.0, largest):
        raise EvosearchError(
            f"{folder / FILES[kind]}: outputs differ from the PyTorch network's by"
            f" {difference:.1e}; at most {TOLERANCE:g} of the largest output {largest:.1e} is"
            " allowed"
        )
    return difference, largest


def _write(network: nn.Module, kind: str, shape: tuple[int, ...], path: Path) -> None:
    if kind == "pt2":
        images, batch = torch.zeros(2, *shape), torch.export.Dim("batch")
        torch.export.save(
            torch.export.export(network, (images,), dynamic_shapes=({0: batch},)), path
        )
        return
    write_onnx(network, shape, path)


def write_onnx(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Writes a network as an ONNX file that takes batches of any size.

    Args:
        network: in eval mode, on the CPU.
        shape: of one image.
        path: of the file.
    """
    program: Any = torch.onnx.export(
        network,
        (torch.zeros(2, *shape),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["outputs"],
        verbose=False,
    )
    program.save(path)


def _write_checks(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    arrays: dict[str, Any] = {}
    for size in BATCHES:
        images = torch.randn(size, *shape, generator=rng)
        with torch.inference_mode():
            outputs: Tensor = network(images)
        arrays |= {f"images{size}": images.numpy(), f"outputs{size}": outputs.numpy()}
    np.savez(path, **arrays)


def _unweighted(config: ModelConfig) -> ModelConfig:
    """Returns the model without its trained weights: the artifact has its own."""
    return config.model_copy(update={"weights": None})


def require_packages(kind: str) -> None:
    """Checks that what a format needs is installed.

    Raises:
        InputError: something is not; names the pip command.
    """
    missing = [
        name
        for name in (("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ())
        if find_spec(name) is None
    ]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: pip install 'evosearch[onnx]'")
