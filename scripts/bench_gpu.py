"""Measures evosearch on a GPU: ResNet-50 at 224 px against plain loops, and a ResNet-56 line.

Four lines, each kept in a file of rows, so that a killed bench goes on:

- candidates: the naive loop (see `naiveloop.py`) and ours in turn, plan after plan, on the same
  images and device, seconds of each;
- training: images per second of one epoch, a plain loop (float32, no augmentation) and ours in
  turn, on the same images;
- search: one search from end to end on each, its wall-clock by stage and by rung;
- resnet56 (with --resnet56 SPACE): a search with elastic weights and finals, against
  torch-pruning's recipe (global group norms, then fine-tuning) at equal epochs, seed by seed;
  the space excludes "conv1", as torch-pruning gets padded shortcuts wrong.

The ResNet-50 has random weights: its times are those of any. Its images are noise and, with
--images FOLDER (`train/CLASS/*`), textures: mosaics of the folder's images, 7 by 7 of 32 px.

    pip install -e '.[bench]'
    .venv/bin/python scripts/bench_gpu.py --work FOLDER [--images FOLDER] [--resnet56 SPACE]
        [--trials 200] [--seeds 3] [--device cpu --tiny]

`--tiny` is a network of 8 layers on few images, to see that the bench works.
"""

import argparse
import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet50

from evosearch.data.splits import TrainSplit, load_test_split
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.loop import Limits
from evosearch.machine import device_name, torch_seeded
from evosearch.models.weights import save_weights
from evosearch.models.zoo import cifar_resnet
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import SearchConfig
from evosearch.run.finals import run_finals
from evosearch.run.session import Session
from evosearch.run.spacefile import SpaceFile, load_space_file
from evosearch.space.budget import BudgetRequest
from evosearch.strategies.fixed_plans import random_mask
from evosearch.tasks.scoring import image_scores
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.elastic import ElasticConfig
from mosaics import mosaics
from naiveloop import Loop, Way
from plaintraining import plain_epochs, torch_pruned

Row = dict[str, Any]
TINY = {"size": 32, "train": 64, "calibration": 16, "search": 32, "test": 16, "batch": 16}
WHOLE = {"size": 224, "train": 4096, "calibration": 512, "search": 2048, "test": 512, "batch": 128}
SPACE = """
[model]
build = "{build}"
input = [3, {size}, {size}]
weights = "weights.safetensors"
{kwargs}
[data]
{data}
calibration = {calibration}
search = {search}
[groups]
exclude = {exclude}
"""


@final
class Bench:
    """Measures what a file of rows does not have yet."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Makes the network and the images."""
        self._device, self._tiny, self._trials = args.device, args.tiny, args.trials
        self._name = device_name(args.device)
        self._work: Path = args.work
        self._work.mkdir(parents=True, exist_ok=True)
        self._path = self._work / "rows.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]
        self._sizes = TINY if args.tiny else WHOLE
        network: nn.Module
        with torch_seeded(0):
            network = cifar_resnet(depth=8) if args.tiny else resnet50()
            with torch.no_grad():
                for _ in range(4):  # so that BatchNorm knows the spread of what comes in
                    network.train()(torch.randn(8, 3, self._sizes["size"], self._sizes["size"]))
        save_weights(network.eval(), self._work / "weights.safetensors")

    def once(self, line: str, number: int, measure: Callable[[], Row]) -> None:
        """Adds a row, where it is not there."""
        if any((row["line"], row["number"]) == (line, number) for row in self.rows):
            return
        self.rows.append({"line": line, "number": number, "device": self._name, **measure()})
        with self._path.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")

    def space(self, images: Path | None) -> SpaceFile:
        """Returns the space of the large network, on noise or on mosaics."""
        sizes = self._sizes
        total = sizes["train"] + sizes["calibration"] + sizes["search"]
        shape = f"[3, {sizes['size']}, {sizes['size']}]"
        data = (
            f'name = "fake"\nkwargs = {{ size = {total}, image_size = {shape}, num_classes = 10 }}'
        )
        if images is not None:
            root = self._work / "mosaics"
            if not root.exists():
                mosaics(images, root, {"train": total, "test": sizes["test"]}, sizes["size"])
            data = f'name = "imagefolder"\nroot = "{root.resolve()}"'
        path = self._work / f"{'noise' if images is None else 'textures'}.toml"
        tiny = self._tiny
        path.write_text(
            SPACE.format(
                build="evosearch.models.zoo:cifar_resnet" if tiny else "torchvision:resnet50",
                kwargs="[model.kwargs]\ndepth = 8" if tiny else "",
                # torch-pruning gets the padded shortcuts of the tiny network wrong
                exclude='["conv1"]' if tiny else "[]",
                data=data,
                **sizes,
            )
        )
        return load_space_file(path)

    def session(self, name: str, file: SpaceFile, callbacks: Callbacks | None = None) -> Session:
        """Begins a search at half the FLOPs, in a folder of its own."""
        return Session.create(
            self._work / f"{name}-{time.time_ns()}",
            space_file=file,
            space_folder=self._work,
            search=SearchConfig(device=self._device),
            request=BudgetRequest.of(flops="50%"),
            anyway=True,
            callbacks=callbacks or Callbacks(),
        )

    def candidates(self, name: str, file: SpaceFile) -> None:
        """Scores random plans with both loops, in turn."""
        session = self.session(name, file)
        prepared = session.prepared
        space, evaluator = prepared.subject.discovery.space, prepared.evaluator
        loop, rng = Loop(prepared.subject), np.random.default_rng(0)
        for number in range(2 if self._tiny else 12):
            mask = random_mask(space, session.study.requested, rng)

            def measure(mask: Any = mask) -> Row:
                way = Way(calibration=self._sizes["calibration"], scored=evaluator.images)
                naive = self._seconds(lambda: loop.losses(mask, way))
                ours = self._seconds(lambda: evaluator.image_scores(mask, 0, evaluator.images))
                return {"naive": naive, "ours": ours, "images": evaluator.images}

            self.once(f"candidates, {name}", number, measure)
        if self._device.startswith("cuda"):
            memory = torch.cuda.max_memory_allocated() / 2**30
            self.once(f"memory, {name}", 0, lambda: {"peak_gib": memory})
        self.training(name, prepared.subject.model, prepared.subject.data.train)
        session.close()

    def training(self, name: str, model: nn.Module, train: TrainSplit) -> None:
        """Trains one epoch with both loops, in turn."""
        size, order = self._sizes["batch"], np.arange(min(len(train), self._sizes["train"]))
        part = train.take(order)
        for number in range(1 if self._tiny else 3):

            def measure() -> Row:
                plain, ours = copy.deepcopy(model), copy.deepcopy(model)
                config = TrainConfig(epochs=1, batch_size=size)
                theirs = self._seconds(lambda: plain_epochs(plain, part, size, epochs=1))
                own = self._seconds(lambda: train_base(ours, part, None, config, seed=0))
                return {"naive": len(part) / theirs, "ours": len(part) / own}

            self.once(f"training, {name}", number, measure)

    def search(self, name: str, file: SpaceFile) -> None:
        """Searches from end to end, and splits the time."""

        def measure() -> Row:
            clock = Stages()
            callbacks = Callbacks(on_stage=clock.begin)
            session = self.session(f"search-{name}", file, callbacks)
            clock.begin("search")
            session.run(Limits(trials=self._trials), callbacks=callbacks)
            clock.begin("end")
            rungs: Counter[str] = Counter()
            for trial in session.study.trials:
                if trial.duplicate_of is None:
                    rungs.update({step.rung.name.lower(): step.seconds for step in trial.steps})
            return {"stages": clock.seconds, "rungs": dict(rungs), "trials": self._trials}

        self.once(f"search, {name}", 0, measure)

    def resnet56(self, path: Path, seed: int) -> None:
        """Searches with elastic weights and ends in finals; prunes by torch-pruning."""
        file = load_space_file(path)
        elastic = file.elastic or ElasticConfig()
        if self._tiny:
            elastic = elastic.model_copy(update={"epochs": 1})
            finetune = file.finetune.model_copy(update={"epochs": 2})
            file = file.model_copy(update={"finetune": finetune})
        file = file.model_copy(update={"elastic": elastic})
        epochs = elastic.epochs + file.finetune.epochs

        def measure() -> Row:
            session = Session.create(
                self._work / f"resnet56-{seed}-{time.time_ns()}",
                space_file=file,
                space_folder=path.parent,
                search=SearchConfig(
                    seed=seed, device=self._device, evaluator=EvaluatorConfig(build="elastic")
                ),
                request=BudgetRequest.of(flops="50%" if self._tiny else "25%..50%"),
                anyway=True,
            )
            subject = session.prepared.subject
            session.run(Limits(trials=self._trials))
            finals = run_finals(session.folder, count=2 if self._tiny else 4).finals
            image = subject.data.train.images[0:1].to(self._device)
            groups = subject.discovery.space.sizes
            theirs = torch_pruned(subject.model, image, 0.5, groups)
            plain_epochs(theirs, subject.data.train, file.finetune.batch_size, epochs=epochs)
            found = image_scores(theirs, load_test_split(file.data, path.parent))
            base = session.study.header.base_cost
            return {
                "test": {"ours": finals.test.accuracy, "torch-pruning": found.score.accuracy},
                "macs": finals.network.cost.macs / base.macs,
                "epochs": epochs,
            }

        self.once("resnet56", seed, measure)

    def _seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()


@final
class Stages:
    """The wall time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._began = "start", time.perf_counter()

    def begin(self, text: str) -> None:
        """Ends the stage before; a text that goes on with the same stage ends nothing."""
        name = text.partition(":")[0]
        now = time.perf_counter()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._began
        self._name, self._began = name, now


def main() -> None:
    """Measures what is missing, and prints what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="folder of textures")
    parser.add_argument("--resnet56", type=Path, help="its space file")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("bench_gpu: torch sees no CUDA device here; --device cpu --tiny tries the bench")
        sys.exit(2)
    bench = Bench(args)
    kinds = {"noise": None, **({} if args.images is None else {"textures": args.images})}
    spaces = {name: bench.space(images) for name, images in kinds.items()}
    for name, file in spaces.items():
        bench.candidates(name, file)
        bench.search(name, file)
    for seed in range(args.seeds if args.resnet56 else 0):
        bench.resnet56(args.resnet56, seed)
    for row in bench.rows:
        print(json.dumps(row))
    for line in sorted({row["line"] for row in bench.rows if "naive" in row}):
        pairs = [(r["naive"], r["ours"]) for r in bench.rows if r["line"] == line]
        slower = "candidates" in line  # seconds there, images per second in training
        gains = [(n / o if slower else o / n) for n, o in pairs]
        low, middle, high = np.percentile(gains, (25, 50, 75))
        print(f"{line}: {middle:.3g} times as fast (quartiles {low:.3g} to {high:.3g})")


if __name__ == "__main__":
    main()
