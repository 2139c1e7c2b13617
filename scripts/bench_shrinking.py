"""Measures how much sooner a training is over whose network shrinks on its way.

ResNet-20 on noise, as many epochs for all: the whole network, `one_cycle` to a budget, and
`scratch` at that budget from the first step. One after the other, in turn, several times; every
epoch is scored on the search split in each. Seconds are of the processor, on one thread, which
other work beside it hardly moves. Prints a Markdown table of ratios to the whole network's
training in the same turn.

    .venv/bin/python scripts/bench_shrinking.py [--budget 25%] [--turns 5] [--images 1280]
        [--epochs 8] [--runs FOLDER]
"""

import argparse
import platform
import shutil
import statistics
import time
from pathlib import Path

import torch

from evosearch.data.splits import load_search_data
from evosearch.machine import environment
from evosearch.models.build import build_model
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import SearchConfig
from evosearch.run.spacefile import SpaceFile
from evosearch.run.training import begin_training
from evosearch.space.budget import BudgetRequest
from evosearch.training.base_training import train_base
from evosearch.training.recipes import PruneConfig

RECIPES = ("one_cycle", "scratch")
HELD_OUT = 256
"""Images of each split that is no training split."""


def space(images: int, epochs: int) -> SpaceFile:
    """Returns the space of ResNet-20 on so many training images of noise."""
    shape, size = [3, 32, 32], images + 2 * HELD_OUT
    return SpaceFile.model_validate(
        {
            "model": {
                "build": "evosearch.models.zoo:cifar_resnet",
                "input": shape,
                "kwargs": {"depth": 20},
            },
            "data": {
                "name": "fake",
                "kwargs": {"size": size, "image_size": shape, "num_classes": 10},
                "calibration": HELD_OUT,
                "search": HELD_OUT,
            },
            "train": {"epochs": epochs, "batch_size": 64},
        }
    )


def whole_seconds(file: SpaceFile) -> float:
    """Returns the processor's seconds that training the whole network takes."""
    data, model = load_search_data(file.data), build_model(file.model)
    began = time.process_time()
    train_base(model, data.train, data.search, file.train, 0)
    return time.process_time() - began


def shrinking_seconds(
    file: SpaceFile, recipe: str, budget: str, runs: Path
) -> tuple[float, float]:
    """Returns the processor's seconds that a recipe takes, and its cost as a share."""
    moments: list[float] = []
    shutil.rmtree(runs / recipe, ignore_errors=True)
    done = begin_training(
        runs / recipe,
        space_file=file,
        space_folder=Path(),
        search=SearchConfig(),
        prune=PruneConfig(recipe=recipe),
        request=BudgetRequest.of(flops=budget),
        callbacks=Callbacks(on_epoch=lambda _: moments.append(time.process_time())),
    )
    return moments[-1] - moments[0], done.share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="25%")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench_shrinking"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = space(given.images, given.epochs)
    ratios: dict[str, list[float]] = {recipe: [] for recipe in RECIPES}
    costs: dict[str, float] = {}
    for _ in range(given.turns):
        whole = whole_seconds(file)
        for recipe in RECIPES:
            seconds, costs[recipe] = shrinking_seconds(file, recipe, given.budget, given.runs)
            ratios[recipe].append(seconds / whole)
    machine = environment(1)
    print(f"{machine['processor']}, one thread, Python {platform.python_version()},", end=" ")
    print(f"torch {torch.__version__}; {given.turns} turns, ResNet-20 to {given.budget}.\n")
    print(
        "| training | processor's seconds / whole: median (least to most) | image-MACs / whole |"
    )
    print("|---|--:|--:|")
    for recipe, found in ratios.items():
        spread = f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        print(f"| {recipe} | {spread} | {costs[recipe]:.2f} |")


if __name__ == "__main__":
    main()
