"""Formats of exported networks, and the export that is checked in a fresh process.

A file is kept only if its outputs are those of the PyTorch network; see `checking`.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from evosearch.callables import one_line
from evosearch.errors import InputError, unknown_name
from evosearch.export.artifact import Artifact, write_card
from evosearch.export.builder import BuildModel, model_section
from evosearch.export.checking import (
    BATCHES,
    CHECK,
    allowed_difference,
    compared,
    file_hash,
    random_batches,
    write_checks,
)
from evosearch.machine import environment


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
            takes several inputs or returns several outputs.
        EvosearchError: the exported file's outputs are not the network's.
    """
    require_packages(kind)
    with new_folder(target) as partial:
        _, difference, largest = write_checked(artifact, kind, partial, build_model)
        entry = export_entry(partial, kind, difference, largest)
        write_card(partial, {**artifact.card, "export": entry})
    return difference


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives a folder that gets a name at the end of the block, and vanishes where that fails.

    Raises:
        InputError: the name is taken.
    """
    if target.exists():
        raise InputError(f"{target}: exists already; name a new folder")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_checked(
    artifact: Artifact, kind: str, folder: Path, build_model: BuildModel
) -> tuple[nn.Module, float, float]:
    """Writes the file of an artifact's network, and its checks, and runs it on them.

    Args:
        artifact: the compact network on disk.
        kind: name of the format.
        folder: to write to.
        build_model: as `export_network`.

    Returns:
        The PyTorch network, the largest difference to its outputs, and the largest of these.

    Raises:
        InputError: the model takes several inputs or returns several outputs, or torch cannot
            follow its code.
        EvosearchError: the file's outputs are not the network's.
    """
    section = model_section(artifact)
    if not section.takes_one_tensor:
        raise InputError("export writes networks of one image tensor; this one takes several")
    (shape,) = section.input_shapes
    network = artifact.load(build_model)
    write_checks(network, random_batches(shape), folder)
    try:
        FORMATS[kind].write(network, shape, folder / FORMATS[kind].file)
    except Exception as error:  # whatever torch says of the network's code
        raise InputError(
            f"format {kind!r} is of a whole network's graph, which torch cannot make of this one:"
            f" {one_line(error)}; format 'safetensors' needs none"
        ) from error
    return network, *compared(folder / FORMATS[kind].file, FORMATS[kind].load)


def export_entry(folder: Path, kind: str, difference: float, largest: float) -> dict[str, Any]:
    """Returns what the card says of an exported file."""
    file = FORMATS[kind].file
    return {
        "format": kind,
        "file": file,
        "sha256": file_hash(folder / file),
        "largest_difference": difference,
        "largest_output": largest,
        "batches_checked": list(BATCHES),
        "environment": environment(torch.get_num_threads()),
    }


def verify(folder: Path) -> tuple[float, float]:
    """Runs an exported file again on the batches that were kept beside it.

    Args:
        folder: holds the file, its checks and its card.

    Returns:
        The largest absolute difference to the outputs that were kept, and the largest of these:
        the PyTorch network's, or those of the int8 file where it was measured.

    Raises:
        InputError: the folder holds no exported file, or not the one that was exported to it.
        EvosearchError: the file does not run, or its outputs differ.
    """
    kind = next((name for name, f in FORMATS.items() if (folder / f.file).is_file()), None)
    if kind is None or not (folder / CHECK).is_file():
        raise InputError(f"{folder}: holds no exported network with its checks")
    require_packages(kind)
    path = folder / FORMATS[kind].file
    return compared(path, FORMATS[kind].load, allowed=allowed_difference(path))
