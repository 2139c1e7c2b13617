"""Measures int8 against float: latency, accuracy and size, of base networks and at half the FLOPs.

    .venv/bin/python scripts/bench_int8.py --space search_spaces/digits_resnet.toml [--space ...]
        [--untrained search_spaces/mobilenet_v2.toml]
        [--search SPACE [--against SPACE] [--latency 60%] [--flops 30%..80%]] [--runs DIR]

Prints Markdown. `--space`: networks with weights and data, cut and not trained, exported in float
and in int8, and scored once more in a fresh process. `--untrained`: random weights, so speed and
size only. `--search`: two searches, under int8 latency and under FLOPs, and networks of equal loss
of both, timed in turn in int8; the second is of the space `--against`, where that is another of
the same network. What was measured is kept in DIR: a bench that was stopped goes on.
Set OMP_NUM_THREADS=1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import evosearch
from evosearch.data.splits import load_search_data
from evosearch.export.checking import compared, random_batches, write_checks
from evosearch.export.formats import FORMATS, verify, write_onnx
from evosearch.export.onnxfile import OnnxNetwork, open_session
from evosearch.export.quantized import Quantized
from evosearch.export.quantizing import quantizable, quantize
from evosearch.latency.meter import Meter
from evosearch.latency.runtimes import file_runner
from evosearch.latency.stopwatch import (
    Runner,
    Stopwatch,
    compare,
    median_interval,
    torch_stopwatch,
)
from evosearch.models.build import build_model
from evosearch.run.reopening import reopen_meter
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import discover_space
from evosearch.space.budget import Budget
from evosearch.strategies.fixed_plans import uniform_mask
from evosearch.study.study import Study
from evosearch.study.trial import Trial
from evosearch.surgery.compaction import compact
from evosearch.surgery.randomizing import randomize

HALF = "50%"
SIZES = {"base": "100%", "half the FLOPs": HALF}
KINDS = ("float", "int8")
BATCH = 1
SECONDS, REPEATS = 2.0, 9
TRIALS = 40
SEARCH_BATCH = 64
ACCURACY = """
import sys, numpy, onnxruntime
given = numpy.load(sys.argv[2], allow_pickle=False)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(outputs,) = session.run(None, {"images": given["images"]})
print((outputs.argmax(1) == given["labels"]).mean())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", type=Path, action="append", default=[])
    parser.add_argument("--untrained", type=Path, action="append", default=[])
    parser.add_argument("--search", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench_int8"))
    parser.add_argument("--flops", default="30%..80%")
    parser.add_argument("--latency", default="60%")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.runs / "rows.json")
    spaces = [*options.space, *options.untrained]
    if spaces:
        head()
    for space in spaces:
        folder = options.runs / space.stem
        make = networks if space in options.space else untrained
        rows(space.stem, make(space, folder, kept), kept)
    if options.search:
        against = options.against or options.search
        searches(options.search, against, options.runs, options.latency, options.flops)


class Kept:
    """What was measured, by name, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def row(self, key: str, measure: Callable[[], Any]) -> Any:
        if key not in self._rows:
            self._rows[key] = measure()
            self._path.write_text(json.dumps(self._rows, indent=1))
        return self._rows[key]


Files = Mapping[tuple[str, str], tuple[Path, Mapping[str, str]]]
"""Size and kind -> the file, and what is known of it in words: test, search, agreement."""


def networks(space: Path, folder: Path, kept: Kept) -> Files:
    """Cuts and exports the networks of a space that has weights and data."""
    files = {}
    for size, flops in SIZES.items():
        place = folder / size.replace(" ", "-")
        if not (place / "cut").exists():
            evosearch.cut(space, flops=flops, to=place / "cut")
        for kind in KINDS:
            key, out = f"{space.stem}, {size}, {kind}", place / kind
            if not out.exists():
                evosearch.export_artifact(
                    place / "cut",
                    to=out,
                    format="onnx",
                    space=space,
                    quantize="int8" if kind == "int8" else None,
                )
            known = kept.row(key, lambda space=space, p=place, k=kind: known_of(space, p, k))
            files[size, kind] = (out / FORMATS["onnx"].file, known)
    return files


def known_of(space: Path, place: Path, kind: str) -> dict[str, str]:
    """Returns the scores on the card, and what a fresh process gives."""
    card = json.loads((place / "int8" / "card.json").read_text()) if kind == "int8" else None
    if card is None:
        return {"agreement": agreement(place / kind), **pending(space, place / kind)}
    quantized = Quantized.from_json(card["export"]["quantized"])
    own = quantized.quantized
    low, high = own.search.accuracy_interval
    fresh = fresh_accuracy(space, place / kind)
    inside = "within" if low <= fresh <= high else "OUTSIDE"
    return {
        "test": own.test.accuracy_text,
        "float test": quantized.float32.test.accuracy_text,
        "lost": str(quantized.lost),
        "layers": ", ".join(layer.module for layer in quantized.layers[:3]),
        "agreement": f"{agreement(place / kind)}; search {100 * fresh:.2f}, {inside} the card's"
        f" {own.search.accuracy_text}",
    }


def pending(space: Path, out: Path) -> dict[str, str]:
    return {"search": f"{100 * fresh_accuracy(space, out):.2f}"}


def agreement(folder: Path) -> str:
    difference, largest = verify(folder)
    return f"{difference:.1e} of {largest:.1f}"


def fresh_accuracy(space: Path, folder: Path) -> float:
    """Returns the accuracy on the search images in a process that knows no evosearch."""
    file = load_space_file(space)
    search = load_search_data(file.data, space.parent).search
    with tempfile.TemporaryDirectory() as exchange:
        images = Path(exchange) / "images.npz"
        np.savez(images, images=search.images[:].numpy(), labels=np.asarray(search.labels))
        path = folder / FORMATS["onnx"].file
        command = [sys.executable, "-P", "-c", ACCURACY, str(path), str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def untrained(space: Path, folder: Path, kept: Kept) -> Files:
    """Writes the networks of a space with random weights, and of a uniform plan at half."""
    file = load_space_file(space)
    (shape,) = file.model.input_shapes
    images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    model = build_model(file.model, space.parent, seed=0)
    randomize(model, (images[:2],), torch.Generator().manual_seed(0))
    discovered = discover_space(file, model.eval()).space
    half = Budget.exactly(macs=discovered.base_cost.macs // 2)
    order = {group.name: -np.arange(group.size) for group in discovered.groups}
    mask = uniform_mask(discovered, half, order)
    files = {}
    for size in SIZES:
        place = folder / size.replace(" ", "-")
        network = model if size == "base" else compact(model, discovered.groups, mask)
        paths = {kind: place / kind / FORMATS["onnx"].file for kind in KINDS}
        if not paths["int8"].exists():
            for path in paths.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            write_onnx(network.eval(), shape, paths["float"])
            write_checks(network, random_batches(shape), paths["float"].parent)
            quantize(quantizable(paths["float"], place / "ready.onnx"), paths["int8"], [images])
            small = OnnxNetwork(paths["int8"], threads=1)
            write_checks(small, random_batches(shape), paths["int8"].parent)
        for kind, path in paths.items():
            key = f"{space.stem}, {size}, {kind}"
            known = kept.row(key, lambda path=path: {"agreement": checked(path)})
            files[size, kind] = (path, known)
    return files


def checked(path: Path) -> str:
    difference, largest = compared(path, FORMATS["onnx"].load)
    return f"{difference:.1e} of {largest:.1f}"


def head() -> None:
    print(
        "| network | size | runtime | latency, % of the base's there | latency, % of the same in"
        " float | test accuracy | bytes | fresh process: difference of largest output |"
    )
    print("|---|---|---|--:|--:|---|--:|---|")


def rows(name: str, files: Files, kept: Kept) -> None:
    for (size, kind), (path, known) in files.items():
        key = f"{name}, {size}, {kind}, latency"
        base, plain = files["base", kind][0], files[size, "float"][0]
        against = floating = "100"
        if path != base:
            against = kept.row(f"{key}, base", lambda p=path, b=base: timed(p, b))
        if path != plain:
            floating = kept.row(f"{key}, float", lambda p=path, f=plain: timed(p, f))
        test = known.get("test", files[size, "int8"][1].get("float test", "-"))
        print(
            f"| {name} | {size} | {kind} | {against} | {floating} | {test} |"
            f" {path.stat().st_size:,} | {known['agreement']} |",
            flush=True,
        )
    for (size, kind), (_, known) in files.items():
        if kind == "int8" and "lost" in known:
            layers = f"; most by {known['layers']}" if known["layers"] else ""
            print(f"\n{name}, {size}: int8 loses {known['lost']} on the search split{layers}.")


def timed(path: Path, other: Path) -> str:
    """Returns the ratio of two files, and the interval of its median over comparisons."""
    shape = open_session(path, 1).get_inputs()[0].shape[1:]
    images = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
    first, second = (file_runner(file, images, 1) for file in (path, other))
    return repeated(first, second, torch_stopwatch(1))


def repeated(first: Runner, second: Runner, stopwatch: Stopwatch) -> str:
    ratios = [compare(first, second, stopwatch, SECONDS).ratio for _ in range(REPEATS)]
    ratio, low, high = (100 * value for value in median_interval(np.array(ratios)))
    return f"{ratio:.1f} ({low:.1f} to {high:.1f})"


def searches(space: Path, against: Path, runs: Path, latency: str, flops: str) -> None:
    """Searches under int8 latency and under FLOPs, and times networks of equal loss in int8."""
    asked: dict[str, tuple[Path, dict[str, Any]]] = {
        "latency": (space, {"latency": latency}),
        "flops": (against, {"flops": flops}),
    }
    folders = {name: runs / f"{name} of {of.stem}" for name, (of, _) in asked.items()}
    for name, (of, limit) in asked.items():
        if not folders[name].exists():
            runtime = {"runtime": "onnxruntime-int8", "batch": SEARCH_BATCH}
            evosearch.search(of, trials=TRIALS, out=folders[name], **runtime, **limit)
    studies = {name: Study.open(folder) for name, folder in folders.items()}
    meter = reopen_meter(folders["latency"], studies["latency"].header)
    print(
        f"\n| `{space.stem}` under {latency} of the int8 latency | `{against.stem}` under FLOPs"
        f" {flops} | int8 latency, % |"
    )
    print("|---|---|--:|")
    for trial in studies["latency"].front().members:
        other = equal_in_loss(trial, studies["flops"])
        if other is not None:
            print(f"| {said(trial)} | {said(other)} | {ratio(meter, trial, other)} |", flush=True)


def said(trial: Trial) -> str:
    assert trial.evaluation is not None
    score = trial.evaluation.score
    cost = f"{trial.cost.flops / 1e3:.0f}K FLOPs"
    return f"trial {trial.number}: loss {score.loss:.3f} ± {score.loss_se:.3f}, {cost}"


def equal_in_loss(trial: Trial, study: Study) -> Trial | None:
    """Returns the trial of fewest FLOPs whose loss is no worse, within the standard error."""
    assert trial.evaluation is not None
    worst = trial.evaluation.score.loss + trial.evaluation.score.loss_se
    equal = [t for t in study.front().members if t.evaluation and t.evaluation.score.loss <= worst]
    return min(equal, key=lambda t: t.cost.macs, default=None)


def ratio(meter: Meter, trial: Trial, other: Trial) -> str:
    first, second = (meter.bench.runner(meter.compact(t.mask)) for t in (trial, other))
    return repeated(first, second, meter.bench.stopwatch)


if __name__ == "__main__":
    main()
