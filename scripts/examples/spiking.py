"""Cut a spiking network, trained before and after by online backward passes.

Leaky integrate-and-fire neurons carry a potential from step to step. In online training (SLTT,
Meng et al. 2023, arXiv 2302.14311) the potential that is carried on is detached, and each step's
loss goes backward at once, so that memory does not grow with the number of steps.

.venv/bin/python scripts/examples/spiking.py [--epochs 8] [--flops 50%]
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import evosearch

STEPS, SQUARES = 5, 0.05
"""Steps that an image is shown for, and the share of squared errors in the loss."""
KEPT = 1 - 1 / 1.1
"""Share of a potential that a step leaves: a time constant of 1.1 steps."""
SPACE = """
[model]
build = "{code}:make_model"
input = [1, 8, 8]
weights = "base.pt"
[data]
name = "{code}:load_images"
calibration = 200
search = 300
"""


class Potentials(NamedTuple):
    """What the neurons of each layer carry on: images x channels x height x width."""

    first: Tensor | float = 0.0
    second: Tensor | float = 0.0


def fire(carried: Tensor | float, drive: Tensor) -> tuple[Tensor, Tensor]:
    """Returns spikes, whose gradient is a triangle around the threshold of 1, and what is left."""
    potential = KEPT * carried + drive
    near = (potential - 1).clamp(-1, 1)
    soft = near - near * near.abs() / 2
    spikes = torch.where(potential >= 1, torch.ones_like(soft), torch.zeros_like(soft))
    spikes = soft + (spikes - soft).detach()
    return spikes, potential - spikes.detach()


class Spiking(nn.Module):
    """Two convolutions whose neurons fire; images -> logits, the mean over the steps."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 10))

    def step(self, images: Tensor, carried: Potentials) -> tuple[Tensor, Potentials]:
        spikes, first = fire(carried.first, self.norm1(self.conv1(images)))
        spikes, second = fire(carried.second, self.norm2(self.conv2(spikes)))
        return self.head(spikes), Potentials(first, second)

    def forward(self, images: Tensor) -> Tensor:
        logits, carried = self.step(images, Potentials())
        for _ in range(STEPS - 1):
            own, carried = self.step(images, carried)
            logits = logits + own
        return logits / STEPS


def make_model() -> nn.Module:
    return Spiking()


def load_images() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    return (images[:1300], digits.target[:1300]), (images[1300:], digits.target[1300:])


def step_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns one step's share of the loss."""
    squares = functional.mse_loss(logits, functional.one_hot(labels, 10).float())
    own = functional.cross_entropy(logits, labels)
    return ((1 - SQUARES) * own + SQUARES * squares) / STEPS


def backward_online(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Adds the gradients of the steps one by one; nothing goes back from a step to another."""
    carried = Potentials()
    for _ in range(STEPS):
        logits, carried = network.step(images, carried)
        carried = Potentials(*(potential.detach() for potential in carried))
        step_loss(logits, labels).backward()


def train(network: nn.Module, epochs: int) -> nn.Module:
    images, labels = map(torch.from_numpy, load_images()[0])
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, epochs)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(64):
            sgd.zero_grad()
            backward_online(network, images[batch], labels[batch])
            sgd.step()
        cosine.step()
    return network.eval()


def accuracy(network: nn.Module) -> float:
    images, labels = map(torch.from_numpy, load_images()[1])
    with torch.no_grad():
        return 100 * (network(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--flops", default="50%")
    options = parser.parse_args()
    torch.manual_seed(0)
    base = train(make_model(), options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(base.state_dict(), Path(folder, "base.pt"))
        space = Path(folder, "spiking.toml")
        space.write_text(SPACE.format(code=Path(__file__).resolve()))
        done = evosearch.cut(space, flops=options.flops)
    share = done.plan.cost.macs / done.base.cost.macs
    cut = accuracy(done.network)
    train(done.network, options.epochs)
    print(
        f"test accuracy {accuracy(base):.1f} %; at {share:.0%} of the FLOPs {cut:.1f} %,"
        f" trained online {accuracy(done.network):.1f} %"
    )


if __name__ == "__main__":
    main()
