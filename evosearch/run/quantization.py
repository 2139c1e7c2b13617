"""The int8 export of a network of a run or space: calibrated, scored, timed, told on its card."""

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import final

import torch
from torch import Tensor, nn

from evosearch.config import validated
from evosearch.data.splits import SearchData, load_search_data
from evosearch.errors import InputError
from evosearch.export.artifact import Artifact, write_card
from evosearch.export.builder import BuildModel
from evosearch.export.checking import ALLOWED, compared, random_batches, write_checks
from evosearch.export.formats import (
    FORMATS,
    export_entry,
    new_folder,
    require_packages,
    write_checked,
)
from evosearch.export.layerlosses import layer_losses
from evosearch.export.onnxfile import OnnxNetwork
from evosearch.export.quantized import POINT, LayerLoss, Lost, Measured, Quantized
from evosearch.export.quantizing import INT8, quantizable, quantize
from evosearch.latency.model import LatencyConfig
from evosearch.latency.runtimes import file_runner, runtime_versions
from evosearch.latency.stopwatch import compare, torch_stopwatch
from evosearch.machine import device_name, torch_threads
from evosearch.models.weights import weights_digest
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.config import SearchConfig, read_run_config
from evosearch.run.folder import RunFolder
from evosearch.run.reopening import held
from evosearch.run.spacefile import SpaceFile, load_space_file
from evosearch.study.scores import Score
from evosearch.study.timing import Conditions, Timing
from evosearch.tasks.config import OWN, load_task
from evosearch.tasks.fitting import require_fit
from evosearch.tasks.scoring import image_scores
from evosearch.tasks.testing import TestReport

FORMAT = "onnx"
"""The export format that int8 is a kind of."""
LEAST, MOST = 32, 512
"""Calibration images: what is needed, and what is used."""
BATCH = 32
"""Images that are calibrated on at a time."""
SECONDS = 3.0
"""That the two files are timed in turn, about."""


@final
@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the data of an artifact's network are from.

    Attributes:
        file: the space file's content.
        folder: where it lies.
        run: folder of the network's run, whose ledger counts how often the test split was opened;
            None where it is of no run that is here.
    """

    file: SpaceFile
    folder: Path
    run: Path | None

    @property
    def search(self) -> SearchConfig:
        """The settings of its [search], which say under which conditions networks are timed."""
        return validated(SearchConfig, self.file.search, "[search]")


def origin_of(artifact: Artifact, space: Path | None, *, trust: bool) -> Origin:
    """Returns where an artifact's data are from: the user's own space file, or what its card says.

    Args:
        artifact: the compact network on disk.
        space: the user's own space file, if there is one.
        trust: whether data and task may be other code than evosearch ships.

    Raises:
        InputError: nothing says where, or it would run code that the user did not vouch for.
    """
    named, run_folder = artifact.card.get("space"), None
    if isinstance(run := artifact.card.get("run"), str) and RunFolder(Path(run)).config.is_file():
        run_folder = Path(run)
    if space is not None:
        return Origin(file=load_space_file(space), folder=space.parent, run=run_folder)
    if run_folder is not None:
        config = read_run_config(run_folder)
        search = config.search.model_dump(include={"latency", "threads"})
        file = config.space.model_copy(update={"search": search})
        origin = Origin(file=file, folder=Path(config.folder), run=run_folder)
    elif isinstance(named, str) and Path(named).is_file():
        path = Path(named)
        origin = Origin(file=load_space_file(path), folder=path.parent, run=None)
    else:
        raise InputError(
            f"{artifact.folder}: int8 is calibrated on the data of the space that the artifact was"
            " made with, and its card names no run or space file that is here; give --space FILE"
        )
    code = [origin.file.data.name, *(getattr(origin.file.task, key) for key in OWN)]
    own = next((name for name in code if name is not None and ":" in name), None)
    if own is not None and not trust:
        raise InputError(
            f"{artifact.folder}: its data or task run {own!r}, and a name in a file may be any"
            " code; give --space FILE to take them from your own space file, or --trust to run"
            " what the artifact names"
        )
    return origin


def export_int8(
    artifact: Artifact,
    target: Path,
    build_model: BuildModel,
    origin: Origin,
    *,
    keep_float: tuple[str, ...] = (),
    callbacks: Callbacks = SILENT,
) -> tuple[Quantized, float]:
    """Exports an artifact's network as an ONNX file in int8, with what it loses and saves.

    Args:
        artifact: the compact network on disk.
        target: new folder; appears whole or not at all.
        build_model: makes the original, unpruned model; its weights do not matter.
        origin: where its data are from.
        keep_float: patterns of modules that stay in float.
        callbacks: told what is being done.

    Returns:
        What stands on the card, and the largest difference to the PyTorch network's outputs on
        the random images that are kept beside the file.

    Raises:
        InputError: something that was given is at fault, or another process has the run; nothing
            is written.
        EvosearchError: a file's outputs are not its network's in a fresh process.
    """
    require_packages(FORMAT)
    search = origin.search
    threads, latency = search.threads, search.latency
    with (
        new_folder(target) as partial,
        TemporaryDirectory() as scratch,
        nullcontext() if origin.run is None else held(origin.run),
        torch_threads(threads),
    ):
        callbacks.on_stage("data")
        data = load_search_data(origin.file.data, origin.folder)
        images = _calibration_images(data)
        task = load_task(origin.file.task, origin.folder)
        ledger = RunFolder(origin.run or artifact.folder).test
        report = TestReport(ledger, origin.file.data, origin.folder, task=task)
        callbacks.on_stage("export, and its check in a fresh process")
        network, _, _ = write_checked(artifact, FORMAT, partial, build_model)
        require_fit(network, data, task)
        path, floating = partial / FORMATS[FORMAT].file, Path(scratch) / "float.onnx"
        shutil.move(path, floating)
        callbacks.on_stage("calibration, and the int8 file's check in a fresh process")
        ready = quantizable(floating, Path(scratch) / "ready.onnx")
        kept = ready.matching(keep_float)
        quantize(ready, path, images, keep=kept)
        small = OnnxNetwork(path, threads)
        difference, largest = _checked(network, small, path, images[0])
        callbacks.on_stage("search split")
        scores = {
            name: image_scores(module, data.search, task=task)
            for name, module in (("float", network), (INT8, small))
        }
        lost = Lost.between(scores["float"], scores[INT8])
        taken = tuple(module for module in ready.modules if module not in kept)
        layers: tuple[LayerLoss, ...] = ()
        if lost.mean > POINT:
            layers = layer_losses(
                ready, taken, images, data.search, task, threads, callbacks.on_stage
            )
        callbacks.on_stage("test")
        name = _name(artifact)
        float32 = Measured(
            search=scores["float"].score,
            test=_tested(report, name, network),
            bytes=floating.stat().st_size,
        )
        quantized = Measured(
            search=scores[INT8].score,
            test=_tested(report, f"{name}, {INT8}", small),
            bytes=path.stat().st_size,
        )
        callbacks.on_stage("latency")
        timing, conditions = _timed(path, floating, latency, tuple(images[0].shape[1:]))
        done = Quantized(
            version=version("onnxruntime"),
            images=sum(map(len, images)),
            int8=taken,
            kept=kept,
            others=tuple(map(str, ready.others)),
            float32=float32,
            quantized=quantized,
            lost=lost,
            layers=layers,
            timing=timing,
            conditions=conditions,
            test_opened=report.opened,
        )
        entry = {
            **export_entry(partial, FORMAT, difference, largest),
            ALLOWED: difference,  # processors differ in how they sum products of bytes
            "quantized": done.to_json(),
        }
        write_card(partial, {**artifact.card, "export": entry})
    return done, difference


def _calibration_images(data: SearchData) -> list[Tensor]:
    """Returns the batches that activations are calibrated on.

    Raises:
        InputError: there are too few images.
    """
    count = len(data.calibration)
    if count < LEAST:
        raise InputError(
            f"{INT8} is calibrated on {LEAST} images at least, and [data] calibration gives"
            f" {count}"
        )
    chosen = data.calibration.shuffled(0, MOST)
    batches = (images for images, _ in chosen.batches(BATCH))
    return [images for images in batches if isinstance(images, Tensor)]


def _checked(
    network: nn.Module, small: OnnxNetwork, path: Path, images: Tensor
) -> tuple[float, float]:
    """Checks that a fresh process gives what an int8 file gives here; keeps the outputs beside it.

    Args:
        network: the float network.
        small: the int8 file, opened.
        path: of the int8 file.
        images: real ones, whose mean, deviation and range the random ones have that are kept:
            what is outside of the calibrated range, int8 cuts off.

    Returns:
        The largest difference to the float network's outputs, and the largest of these.

    Raises:
        EvosearchError: the fresh process gives something else.
    """
    flat = images.movedim(1, -1).flatten(0, -2)
    spread = [value.view(-1, 1, 1) for value in (flat.mean(0), flat.std(0), *flat.aminmax(dim=0))]
    mean, deviation, low, high = spread
    noise = random_batches(tuple(images.shape[1:]))
    batches = [(mean + deviation * batch).clamp(low, high) for batch in noise]
    write_checks(small, batches, path.parent)
    compared(path, FORMATS[FORMAT].load)
    with torch.inference_mode():
        outputs = torch.cat([network(batch) for batch in batches])
        differences = torch.cat([small(batch) for batch in batches]) - outputs
    return float(differences.abs().max()), float(outputs.abs().max())


def _name(artifact: Artifact) -> str:
    """Returns what the ledger of the test split calls an artifact's network."""
    networks = artifact.card.get("networks")
    return str(networks[-1]["name"] if networks else artifact.card.get("plan", "network"))


def _tested(report: TestReport, name: str, module: nn.Module) -> Score:
    """Returns a network's score on test: from the ledger where these weights have one by any name.

    A network with other weights of the same name, such as another export's, is another network.
    """
    digest = weights_digest(module)
    known = next((own for own in report.results.values() if own.weights == digest), None)
    return (known or report.measure(f"{name}, {digest[:8]}", module)).score


def _timed(
    path: Path, floating: Path, config: LatencyConfig, shape: tuple[int, ...]
) -> tuple[Timing, Conditions]:
    """Times the int8 file against the float file, both in turn, in ONNX Runtime."""
    images = torch.randn(config.batch, *shape, generator=torch.Generator().manual_seed(0))
    small, whole = (file_runner(file, images, config.threads) for file in (path, floating))
    conditions = Conditions(
        device=device_name("cpu"),
        runtime="onnxruntime",
        batch=config.batch,
        threads=config.threads,
        versions=runtime_versions("onnxruntime"),
    )
    return compare(small, whole, torch_stopwatch(config.threads), SECONDS), conditions
