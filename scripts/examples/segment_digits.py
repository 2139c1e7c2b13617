"""Search a segmentation network: a small U-Net on scenes of digits, judged by mIoU.

.venv/bin/python scripts/examples/segment_digits.py [--trials 30] [--epochs 4] [--out RUN]
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import evosearch

SPACE = Path(__file__).with_suffix(".toml")


def block(inputs: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three sizes of maps; each on the way up is concatenated to that on the way down."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [block(1, width), block(width, 2 * width), block(2 * width, 4 * width)]
        )
        self.up = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.down[0](images)
        second = self.down[1](functional.max_pool2d(first, 2))
        third = self.down[2](functional.max_pool2d(second, 2))
        wider = functional.interpolate(third, scale_factor=2.0)
        second = self.up[0](torch.cat([wider, second], 1))
        wider = functional.interpolate(second, scale_factor=2.0)
        return self.head(self.up[1](torch.cat([wider, first], 1)))


def make_model() -> nn.Module:
    return UNet(width=10, classes=11)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = evosearch.search(SPACE, flops="50%", trials=options.trials, seed=0, out=options.out)
    done = evosearch.finetune(run.folder, at="flops=50%", epochs=options.epochs, baselines=True)
    for network in done.networks:
        size = network.cost.macs / done.networks[0].cost.macs
        test = network.test
        print(f"{network.name}: {size:.1%} of the FLOPs, {test.metric} {test.accuracy_text} %")


if __name__ == "__main__":
    main()
