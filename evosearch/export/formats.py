"""Formats of exported networks, and the export that is checked in a fresh process.

A file is written, run in a fresh process on batches of two sizes, and kept only if its outputs are
those of the PyTorch network; the largest difference goes into the card, and so does the file's
hash: a `.pt2` can hold code, so a file is run again only where it is the one that the card is of.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.callables import one_line
from evosearch.errors import EvosearchError, InputError, unknown_name
from evosearch.export.artifact import Artifact, write_card
from evosearch.export.builder import BuildModel, model_section
from evosearch.export.card import CARD
from evosearch.machine import environment
from evosearch.processes import ProcessError, run_fresh

BATCHES = (1, 7)
"""Sizes of the batches that an exported file is checked on."""
TOLERANCE = 1e-4
"""Largest difference of outputs allowed, as a share of the largest output, or of one."""
CHECK = "check.npz"


def write_onnx(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Writes a network as an ONNX file; see `Format.write`."""
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


def write_pt2(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Writes a network as a program of `torch.export`; see `Format.write`."""
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


@final
@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file that holds a network for another runtime.

    Attributes:
        file: its name.
        write: writes a network, in eval mode and on the CPU, that takes images of a shape, in
            batches of any size.
        load: Python that turns the file at `path` into `run`, from an array of images to one of
            outputs. It stands in a fresh process after `import numpy`, and needs no evosearch.
        packages: needed beside those that evosearch is installed with; the extra that installs
            them has the format's name.
    """

    file: str
    write: Callable[[nn.Module, tuple[int, ...], Path], None]
    load: str
    packages: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    "onnx": Format(
        file="model.onnx",
        write=write_onnx,
        load="""
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
run = lambda images: session.run(None, {"images": images})[0]
""",
        packages=("onnx", "onnxscript", "onnxruntime"),
    ),
    "pt2": Format(
        file="model.pt2",
        write=write_pt2,
        load="""
import torch
network = torch.export.load(path).module()
run = lambda images: network(torch.from_numpy(images)).detach().numpy()
""",
    ),
}
"""Every format by name."""

_CHECK = """
import sys, numpy
path = sys.argv[1]
{load}
checks = numpy.load(sys.argv[2], allow_pickle=False)
pairs = [(run(checks[f"images{{n}}"]), checks[f"outputs{{n}}"]) for n in {batches}]
print(max(float(abs(mine - theirs).max()) for mine, theirs in pairs))
"""


def format_of(name: str) -> Format:
    """Returns the format of a name.

    Raises:
        InputError: there is none; names the nearest that there is.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]


def require_packages(name: str) -> None:
    """Checks that what a format needs is installed.

    Raises:
        InputError: there is no such format, or something is not installed; names the pip command.
    """
    missing = [package for package in format_of(name).packages if find_spec(package) is None]
    if missing:
        raise InputError(
            f"format {name!r} needs {', '.join(missing)}: pip install 'evosearch[{name}]'"
        )


def export_network(artifact: Artifact, kind: str, target: Path, build_model: BuildModel) -> float:
    """Exports an artifact's network to a new folder, with its card, and checks it.

    Args:
        artifact: the compact network on disk.
        kind: name of the format.
        target: the folder; appears whole or not at all.
        build_model: makes the original, unpruned model; its weights do not matter.

    Returns:
        The largest absolute difference between outputs.

    Raises:
        InputError: the target exists, there is no such format, a package is missing, or the model
            takes several inputs.
        EvosearchError: the exported file's outputs are not the network's.
    """
    if target.exists():
        raise InputError(f"{target}: exists already; name a new folder")
    require_packages(kind)
    chosen = FORMATS[kind]
    section = model_section(artifact)
    if not section.takes_one_tensor:
        raise InputError("export writes networks of one image tensor; this one takes several")
    shapes = section.input_shapes
    network = artifact.load(build_model)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(chosen, kind, network, shapes[0], partial / chosen.file)
        _write_checks(network, shapes[0], partial / CHECK)
        difference, largest = _compared(partial, kind)
        card = {
            **artifact.card,
            "export": {
                "format": kind,
                "file": chosen.file,
                "sha256": _sha256(partial / chosen.file),
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
    """Runs an exported file again on the batches that were kept beside it.

    Args:
        folder: holds the file, its checks and its card.

    Returns:
        The largest absolute difference to the PyTorch network's outputs, and the largest output.

    Raises:
        InputError: the folder holds no exported file, or not the one that was exported to it.
        EvosearchError: the file does not run, or its outputs differ.
    """
    kind = next((name for name, f in FORMATS.items() if (folder / f.file).is_file()), None)
    if kind is None or not (folder / CHECK).is_file():
        raise InputError(f"{folder}: holds no exported network with its checks")
    require_packages(kind)
    _require_unchanged(folder, FORMATS[kind].file)
    return _compared(folder, kind)


def _require_unchanged(folder: Path, file: str) -> None:
    """Checks that an exported file is the one that the card beside it is of.

    Raises:
        InputError: it is not, or the card does not say.
    """
    try:
        expected = json.loads((folder / CARD).read_text(encoding="utf-8"))["export"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / file}: not run, as {CARD} has no hash of it; export the artifact anew"
        ) from error
    found = _sha256(folder / file)
    if found != expected:
        raise InputError(
            f"{folder / file}: not run, as it is not the file that was exported: its SHA-256 is"
            f" {found[:16]}..., in {CARD} {str(expected)[:16]}...; export the artifact anew"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _compared(folder: Path, kind: str) -> tuple[float, float]:
    """Runs a file in a fresh process, and compares its outputs; see `verify`.

    The process imports what is installed alone: where it is started may be the file's folder.
    """
    path = folder / FORMATS[kind].file
    code = _CHECK.format(load=FORMATS[kind].load, batches=BATCHES)
    try:
        difference = float(run_fresh("-c", code, path, folder / CHECK, importing=False))
    except ProcessError as error:
        raise EvosearchError(f"{path}: does not run: {error}") from error
    with np.load(folder / CHECK, allow_pickle=False) as checks:
        largest = max(float(np.abs(checks[f"outputs{size}"]).max()) for size in BATCHES)
    if not difference <= TOLERANCE * max(1.0, largest):
        raise EvosearchError(
            f"{path}: outputs differ from the PyTorch network's by"
            f" {difference:.1e}; at most {TOLERANCE:g} of the largest output {largest:.1e} is"
            " allowed"
        )
    return difference, largest


def _write(
    chosen: Format, kind: str, network: nn.Module, shape: tuple[int, ...], path: Path
) -> None:
    try:
        chosen.write(network, shape, path)
    except Exception as error:  # whatever torch says of the network's code
        raise InputError(
            f"format {kind!r} is of a whole network's graph, which torch cannot make of this one:"
            f" {one_line(error)}; format 'safetensors' needs none"
        ) from error


def _write_checks(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    arrays: dict[str, Any] = {}
    for size in BATCHES:
        images = torch.randn(size, *shape, generator=rng)
        with torch.inference_mode():
            outputs: Tensor = network(images)
        arrays |= {f"images{size}": images.numpy(), f"outputs{size}": outputs.numpy()}
    np.savez(path, **arrays)
