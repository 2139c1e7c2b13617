"""Search a network of your own: a model, its data, and a space file that names both.

.venv/bin/python scripts/examples/own_model.py [--trials 20] [--out RUN]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import evosearch

SPACE = Path(__file__).with_suffix(".toml")


class TwoPaths(nn.Module):
    """A 3x3 and a 1x1 path that are concatenated, then a head: coupled channels of its own."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.narrow = nn.Conv2d(width, width, 1)
        self.mix = nn.Sequential(nn.BatchNorm2d(2 * width), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(8 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        paths = torch.cat([self.wide(features), self.narrow(features)], dim=1)
        return self.head(self.mix(paths).flatten(1))


def make_model() -> nn.Module:
    return TwoPaths()


def load_images() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    return (images[:1300], digits.target[:1300]), (images[1300:], digits.target[1300:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = evosearch.search(SPACE, flops="40%", trials=options.trials, seed=0, out=options.out)
    for group, size in run.study.header.sizes.items():
        print(f"{group}: keeps {run.pick().mask.widths[group]} of {size}")
    done = evosearch.finetune(run.folder, epochs=5)
    network = evosearch.load_artifact(done.artifact.folder).load(make_model)
    params = sum(parameter.numel() for parameter in network.parameters())
    test = done.networks[-1].test
    print(f"{params} params, test accuracy {test.accuracy_text} %")


if __name__ == "__main__":
    main()
