"""Times the bootstrap error of mAP: all choices of images at once, against one after the other.

Boxes are drawn: each image has up to 15 true ones and 100 predicted ones beside these.

    .venv/bin/python scripts/bench_map.py [--images 1000] [--classes 80]
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evosearch.study.scores import Measure, Reals
from evosearch.tasks.detection import MAP, MOST, matches

Image = dict[str, Tensor]


def scene(rng: np.random.Generator, classes: int) -> tuple[Image, Image]:
    """Returns predicted and true boxes of an image of 500 px."""
    count = int(rng.integers(1, 16))
    corners = rng.uniform(0, 500, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 120, corners.shape)], axis=1)
    labels = rng.integers(0, classes, count)
    of = rng.integers(0, count, MOST)
    guesses = boxes[of] + rng.normal(0, 6, (MOST, 4))
    kinds = np.where(rng.random(MOST) < 0.5, labels[of], rng.integers(0, classes, MOST))
    predicted = {"boxes": guesses, "labels": kinds, "scores": rng.random(MOST)}
    true = {"boxes": boxes, "labels": labels}
    first, second = (
        {name: torch.from_numpy(values) for name, values in own.items()}
        for own in (predicted, true)
    )
    return first, second


def seconds(measure: Measure, rows: Reals) -> tuple[float, Reals]:
    """Returns how long the bootstrap takes, and its values."""
    began = time.perf_counter()
    values = measure.resampled(rows)
    return time.perf_counter() - began, values


def main() -> None:
    """Prints the seconds of both, and how far their values are apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=80)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    predicted, true = zip(
        *(scene(rng, options.classes) for _ in range(options.images)), strict=True
    )
    began = time.perf_counter()
    rows = matches(predicted, true, predictions=lambda output: output).numpy()
    print(f"matching, once: {time.perf_counter() - began:.2f} s, mAP {MAP.value(rows):.4f}")
    fast, values = seconds(MAP, rows)
    slow, others = seconds(replace(MAP, chosen=None), rows)
    apart = np.abs(values - others).max()
    print(f"{len(values)} choices at once: {fast:.2f} s; one by one: {slow:.2f} s")
    print(f"standard error {values.std(ddof=1):.4f}; values apart by at most {apart:.1e}")


if __name__ == "__main__":
    main()
