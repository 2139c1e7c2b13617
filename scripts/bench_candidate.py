"""Times one candidate: compensated (ResNet-50, 224 px), and scored (ResNet-20, 32 px), on noise.

Prints the processor time of each in one thread. To compare two versions, run it in turn with the
code of each:

    PYTHONPATH=CHECKOUT .venv/bin/python scripts/bench_candidate.py [--images 64] [--pixels 224]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet50

from evosearch.data.images import Images, StoredPixels
from evosearch.data.splits import CalibrationSplit, SearchSplit
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.machine import torch_seeded
from evosearch.models.precision import fastest_numerics
from evosearch.models.zoo import cifar_resnet
from evosearch.refit.building import Builder
from evosearch.space.mask import Mask
from evosearch.surgery.discovery import Discovery, GroupRules, discover

KEPT = 0.7
"""Share of the channels of each group that stay: about half the MACs."""
SCORED = 2000


def seconds_of(work: Callable[[], object]) -> float:
    """Returns the processor time of the second of two calls."""
    work()
    began = time.process_time()
    work()
    return time.process_time() - began


def found_in(model: nn.Module, pixels: int) -> tuple[Discovery, Mask]:
    """Returns the groups of a network, and a random mask of them."""
    found = discover(model, (torch.randn(2, 3, pixels, pixels),), GroupRules(), seed=0)
    rng = np.random.default_rng(0)
    kept = {g.name: rng.permutation(g.size) < KEPT * g.size for g in found.space.groups}
    return found, Mask(kept)


def compensated(images: int, pixels: int) -> float:
    """Returns the seconds of building a candidate; groups are the same at any size of image."""
    with torch_seeded(0):
        model = resnet50().train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(8, 3, 64, 64))
        batches = list(torch.randn(images, 3, pixels, pixels).split(32))
    found, mask = found_in(model.eval(), 64)
    builder = Builder(
        model=model,
        discovery=found,
        batches=batches,
        images=images,
        build="compensated",
        numerics=fastest_numerics(torch.device("cpu")),
        seed=0,
    )
    builder.prepare()
    return seconds_of(lambda: builder.candidate(mask))


def scored() -> float:
    """Returns the seconds of scoring a candidate that is built."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (SCORED + 128, 3, 32, 32), dtype=np.uint8)
    pixels = StoredPixels(array)

    def images(positions: np.ndarray) -> Images:
        return Images(pixels=pixels, positions=positions, mean=(0.5,) * 3, std=(0.2,) * 3)

    labels = torch.from_numpy(rng.integers(0, 10, SCORED + 128))
    search, rest = np.arange(SCORED), np.arange(SCORED, SCORED + 128)
    with torch_seeded(0):
        model = cifar_resnet(depth=20).eval()
    found, mask = found_in(model, 32)
    evaluator = MaskEvaluator(
        model=model,
        discovery=found,
        calibration=CalibrationSplit(
            images=images(rest), labels=labels[rest], indices=torch.from_numpy(rest)
        ),
        search=SearchSplit(
            images=images(search), labels=labels[search], indices=torch.from_numpy(search)
        ),
        config=EvaluatorConfig(build="recalibrated"),
        seed=0,
    )
    return seconds_of(lambda: [evaluator.image_scores(mask, 0, SCORED) for _ in range(4)]) / 4


def main() -> None:
    """Prints both times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64, help="calibration images")
    parser.add_argument("--pixels", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"scored on {SCORED} images: {scored():.3f} s", flush=True)
    print(f"compensated: {compensated(args.images, args.pixels):.2f} s", flush=True)


if __name__ == "__main__":
    main()
