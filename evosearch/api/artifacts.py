"""Artifacts from Python: fine-tuned networks on disk, opened, measured and exported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from evosearch.api.parameters import Count, PathLike, public
from evosearch.api.searching import given_settings
from evosearch.errors import InputError, unknown_name
from evosearch.run.callbacks import SILENT, Callbacks

if TYPE_CHECKING:
    from evosearch.export.artifact import Artifact
    from evosearch.export.builder import BuildModel
    from evosearch.export.quantized import Quantized
    from evosearch.latency.deployed import Deployed

COPY = "safetensors"
"""The format that an artifact has."""


@final
@dataclass(frozen=True, kw_only=True)
class Exported:
    """A network for another program.

    Attributes:
        path: its file, or its folder where it is a copy of the artifact.
        difference: the largest difference of its outputs to the PyTorch network's; None for a
            copy, which is not run.
        largest: the largest output that was compared; None where nothing was checked again.
        quantized: what it loses and saves in int8; None for float.
    """

    path: Path
    difference: float | None = None
    largest: float | None = None
    quantized: "Quantized | None" = None


def load_artifact(artifact: PathLike) -> "Artifact":
    """Opens a fine-tuned network; its `load(build_model)` gives the `torch.nn.Module`.

    Args:
        artifact: folder of an artifact.

    Raises:
        InputError: the folder holds none.
    """
    from evosearch.export.artifact import Artifact

    return Artifact.open(Path(artifact))


@public
def export_artifact(
    artifact: PathLike,
    *,
    to: PathLike | None = None,
    format: str = COPY,
    quantize: str | None = None,
    keep_float: Sequence[str] | None = None,
    space: PathLike | None = None,
    trust: bool = False,
    verify: bool = False,
    callbacks: Callbacks = SILENT,
) -> Exported:
    """Copies an artifact with a loader that needs torch and safetensors only, or converts it.

    Args:
        artifact: folder of an artifact.
        to: new folder.
        format: of the file: safetensors, onnx or pt2.
        quantize: int8, of onnx: convolutions and matrix products in int8, calibrated on the
            calibration split of the artifact's data; measured on test, and timed (default none).
        keep_float: pattern of modules that stay in float, such as "layer1.*"; may be given again
            (default none).
        space: the space file that the artifact was made with, whose builder makes the network
            that is converted, and whose data calibrate it.
        trust: run the builder that the artifact names, and its data's and task's code, whatever
            it is; without this only networks that evosearch or torchvision ships.
        verify: check an exported folder again; writes nothing.
        callbacks: told what is being done.

    Raises:
        InputError: the folder holds no artifact, or something that was given is at fault.
        EvosearchError: the outputs of what was exported are not the network's.
    """
    from evosearch.export.formats import FORMATS, export_network
    from evosearch.export.formats import verify as verify_export

    folder = Path(artifact)
    if verify:
        difference, largest = verify_export(folder)
        return Exported(path=folder, difference=difference, largest=largest)
    if to is None:
        raise InputError("--to names the new folder to export to")
    if format not in (COPY, *FORMATS):
        raise unknown_name("format", format, [COPY, *FORMATS])
    _require_quantizable(format, quantize, keep_float)
    target, opened = Path(to), load_artifact(folder)
    if format == COPY:
        opened.export(target)
        return Exported(path=target)
    if quantize is not None:
        from evosearch.run.quantization import export_int8, origin_of

        origin = origin_of(opened, None if space is None else Path(space), trust=trust)
        build, kept = _builder(opened, space, trust), tuple(keep_float or ())
        quantized, difference = export_int8(
            opened, target, build, origin, keep_float=kept, callbacks=callbacks
        )
        file = target / FORMATS[format].file
        return Exported(path=file, difference=difference, quantized=quantized)
    callbacks.on_stage("export, and its check in a fresh process")
    difference = export_network(opened, format, target, _builder(opened, space, trust))
    return Exported(path=target / FORMATS[format].file, difference=difference)


@public
def measure_artifact(
    artifact: PathLike,
    *,
    runtime: Sequence[str] | None = None,
    batch: Count = None,
    threads: Count = None,
    device: str | None = None,
    space: PathLike | None = None,
    trust: bool = False,
    callbacks: Callbacks = SILENT,
) -> "Deployed":
    """Measures what an artifact's network costs to run here, beside the base network.

    Time, and energy where a counter of the hardware can be read. Both stand on its card.

    Args:
        artifact: folder of an artifact.
        runtime: eager, compile, exported, onnxruntime or onnxruntime-int8; may be given again
            (default eager).
        batch: images in one run (default 1).
        threads: of the CPU (default 1).
        device: what networks run on: auto (default), cpu or cuda.
        space: the space file that the artifact was made with, whose builder makes the networks.
        trust: run the builder that the artifact names, whatever it is; without this only networks
            that evosearch or torchvision ships.
        callbacks: told what is being done.

    Raises:
        InputError: the folder holds no artifact, or something that was given is at fault.
    """
    from evosearch.latency.deployed import measure_deployed
    from evosearch.latency.model import LatencyConfig
    from evosearch.machine import resolve_device
    from evosearch.run.folder import RunFolder

    opened = load_artifact(artifact)
    given = given_settings({"batch": batch, "threads": threads})
    names = dict.fromkeys(runtime or [LatencyConfig().runtime])
    run = opened.card.get("run")
    weights = RunFolder(Path(run)).base if isinstance(run, str) else None
    return measure_deployed(
        opened,
        _builder(opened, space, trust),
        [LatencyConfig(runtime=name, **given) for name in names],
        device=resolve_device(device or "auto"),
        base_weights=weights if weights is not None and weights.is_file() else None,
        on_stage=callbacks.on_stage,
    )


def _require_quantizable(
    format: str, quantize: str | None, keep_float: Sequence[str] | None
) -> None:
    """Checks that what is said of quantization fits together.

    Raises:
        InputError: it does not.
    """
    from evosearch.export.quantizing import INT8

    if quantize is None and keep_float:
        raise InputError("--keep-float is for --quantize int8, which it leaves layers out of")
    if quantize not in (None, INT8):
        raise unknown_name("quantization", quantize, [INT8])
    if quantize is not None and format != "onnx":
        raise InputError(f"--quantize {INT8} is for --format onnx, not {format}")


def _builder(artifact: "Artifact", space: PathLike | None, trust: bool) -> "BuildModel":
    """Returns what makes the network of an artifact: of the user's space file, if there is one.

    Raises:
        InputError: it is code that the user did not vouch for, or makes another network.
    """
    from evosearch.export.builder import named_builder, own_builder
    from evosearch.run.config import space_folder_of
    from evosearch.run.spacefile import load_space_file

    if space is None:
        return named_builder(artifact, space_folder_of(artifact.card), trust=trust)
    if trust:
        raise InputError("--space and --trust name two builders: give one of them")
    path = Path(space)
    return own_builder(artifact, load_space_file(path).model, path)
