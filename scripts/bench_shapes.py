"""Forward passes of random plans of the ResNet-20, first and again: the cost of fresh shapes.

oneDNN makes code for every new combination of channels and batch size. Widths are rounded up to a
multiple of 1, 4, 8 or 16; BatchNorm is folded, and memory has channels last. Milliseconds of the
processor, medians over plans, in one process of one thread.

    [ONEDNN_PRIMITIVE_CACHE_CAPACITY=20000] .venv/bin/python scripts/bench_shapes.py [--plans 24]
"""

import argparse
import time

import numpy as np
import torch

from evosearch.machine import torch_seeded
from evosearch.models.precision import Numerics, Precision
from evosearch.models.zoo import cifar_resnet
from evosearch.refit.folding import fold_batchnorms
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover

IMAGES = 64
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")


def drawn(space: SearchSpace, step: int, rng: np.random.Generator) -> Mask:
    """Returns random channels at random widths, from 0.3 of each group on, in steps."""
    widths = {g.name: -(-int(rng.uniform(0.3, 1) * g.size) // step) * step for g in space.groups}
    return Mask({g.name: rng.permutation(g.size) < widths[g.name] for g in space.groups})


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch_seeded(0):
        model = cifar_resnet(depth=20).eval()
        images = torch.randn(IMAGES, 3, 32, 32)
    found = discover(model, (images[:2],), GroupRules(), seed=0)
    rng = np.random.default_rng(0)
    print("| precision | widths in steps of | first pass, ms | second | third |")
    print("|---|---|---|---|---|")
    for precision in PRECISIONS:
        numerics = Numerics(precision=precision, layout="channels_last")
        batch = numerics.images(images)
        for step in (1, 4, 8, 16):
            taken = np.zeros((args.plans, 3))
            for row in taken:
                network = compact(model, found.space.groups, drawn(found.space, step, rng)).eval()
                fold_batchnorms(network, found.layers)
                network = numerics.network(network)
                with torch.inference_mode(), numerics.computing(images.device):
                    for turn in range(3):
                        began = time.process_time()
                        network(batch)
                        row[turn] = 1000 * (time.process_time() - began)
            cells = [f"{value:.1f}" for value in np.median(taken, axis=0)]
            print(f"| {precision} | {step} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
