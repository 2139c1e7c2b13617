"""Seed a genetic search with masks that a network makes from images of the task at hand.

A mask generator is trained over many small tasks, each of a few classes: from the mean features
of a set of images it makes a mask for the pretrained network. For a task that it has not seen it
takes a few steps, and its mask is where the search begins (after STAMP, Song et al. 2020, arXiv
2006.12139, by its abstract; the generator's form and its losses are this program's).

.venv/bin/python scripts/examples/stamp.py [--episodes 300] [--trials 48] [--flops 25%]
"""

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import evosearch
from evosearch.criteria import CRITERIA
from evosearch.criteria.base import Criterion, Needs, Normaliser

TARGET = (3, 5, 8, 9)
"""The classes of the task at hand; other tasks have as many, and not these four together."""
KEPT, SET, STEPS = 0.5, 64, 2
"""Share of the channels that masks keep, images of a set, and steps on the task at hand."""
SPACE = """
[model]
build = "{code}:make_model"
input = [1, 8, 8]
weights = "base.pt"
[data]
name = "{code}:load_images"
calibration = 120
search = 160
"""


class Base(nn.Module):
    """Three convolutions whose channels may be multiplied by gates; images -> logits."""

    sizes = (16, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *self.sizes)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[n], widths[n + 1], 3, stride=1 + (n == 1), padding=1)
            for n in range(3)
        )
        self.head = nn.Linear(self.sizes[-1], 10)

    def features(self, images: Tensor, gates: list[Tensor] | None = None) -> list[Tensor]:
        """Returns the mean of each layer's channels over positions, (images, channels) each."""
        means = []
        for n, conv in enumerate(self.convs):
            images = conv(images).relu()
            if gates is not None:
                images = images * gates[n][:, None, None]
            means.append(images.mean((2, 3)))
        return means

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)[-1])


class MaskGenerator(nn.Module):
    """From a set of images to chances that each channel stays, one tensor for each layer."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.base = [base.requires_grad_(False)]  # in a list: it is no part of the generator
        self.layers = nn.ModuleList(nn.Linear(sum(base.sizes), size) for size in base.sizes)

    def forward(self, images: Tensor) -> list[Tensor]:
        means = torch.cat(self.base[0].features(images), 1).mean(0)  # the order is of no matter
        return [layer(means).sigmoid() for layer in self.layers]

    def loss(self, images: Tensor, others: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss on other images of a task with the mask that a set of it gives."""
        chances = self(images)
        # Forwards a channel is there or not; backwards the gradient is its chance's.
        gates = [(own > 0.5).float() + own - own.detach() for own in chances]
        logits = self.base[0].head(self.base[0].features(others, gates)[-1])
        kept, every = torch.cat(gates).mean(), torch.cat(chances)
        size = functional.relu(kept / KEPT - 1) ** 2
        decided = (every * (1 - every)).mean()
        return functional.cross_entropy(logits, labels) + 10 * size + 0.1 * decided


class Stamp(Criterion[None]):
    """Chances that a mask generator gives the channels, from a set of the task's images."""

    needs = Needs.IMAGES
    source = "Song et al. 2020, arXiv 2006.12139, by its abstract"
    coupled = "there are no coupled groups in this network"
    normaliser = Normaliser.NONE
    generator: MaskGenerator

    @staticmethod
    def gather(criteria, _network, batches, _rng):
        images = torch.cat([images for images, _ in batches])[:SET]
        with torch.no_grad():
            return [Stamp.generator(images)] * len(criteria)

    def score(self, network, evidence, _rng):
        chances = {f"convs.{n}": own.double().numpy() for n, own in enumerate(evidence)}
        return {group.name: chances[group.name] for group in network.groups}


def make_model() -> nn.Module:
    return Base()


def digits(part: slice, classes: tuple[int, ...] = tuple(range(10))) -> tuple[Tensor, Tensor]:
    all_images, all_labels = load_digits(return_X_y=True)
    images = torch.from_numpy(all_images[part] / 16).float().reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(all_labels[part])
    mine = torch.isin(labels, torch.tensor(classes))
    return images[mine], labels[mine]


def load_images() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    parts = digits(slice(1300), TARGET), digits(slice(1300, None), TARGET)
    return tuple((images.numpy(), labels.numpy()) for images, labels in parts)


def pretrained(epochs: int) -> Base:
    base, (images, labels) = Base(), digits(slice(1300))
    adam = torch.optim.Adam(base.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(64):
            adam.zero_grad()
            functional.cross_entropy(base(images[batch]), labels[batch]).backward()
            adam.step()
    return base.eval()


def take_steps(generator: MaskGenerator, tasks: list[tuple[Tensor, Tensor]]) -> None:
    """Takes a step on each task: the mask of a set of its images is judged on as many others."""
    adam = torch.optim.Adam(generator.parameters(), lr=3e-3)
    for images, labels in tasks:
        first, second = torch.randperm(len(labels))[: 2 * SET].chunk(2)
        adam.zero_grad()
        generator.loss(images[first], images[second], labels[second]).backward()
        adam.step()


def drawn_classes() -> tuple[int, ...]:
    while sorted(classes := torch.randperm(10)[: len(TARGET)].tolist()) == list(TARGET):
        pass
    return tuple(classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--flops", default="25%")
    options = parser.parse_args()
    torch.manual_seed(0)
    base = pretrained(epochs=40)
    Stamp.generator = MaskGenerator(copy.deepcopy(base))
    train = slice(1300)
    take_steps(Stamp.generator, [digits(train, drawn_classes()) for _ in range(options.episodes)])
    take_steps(Stamp.generator, [digits(train, TARGET)] * STEPS)
    CRITERIA["stamp"] = Stamp

    found = []
    with tempfile.TemporaryDirectory() as folder:
        torch.save(base.state_dict(), Path(folder, "base.pt"))
        space = Path(folder, "stamp.toml")
        space.write_text(SPACE.format(code=Path(__file__).resolve()))
        for criterion in ("stamp", "l1"):
            for strategy, trials in (("global", 1), ("genetic", options.trials)):
                run = evosearch.search(
                    space, flops=options.flops, strategy=strategy, criterion=criterion,
                    trials=trials, out=Path(folder, f"{criterion}-{strategy}"),
                )  # fmt: skip
                found.append(run.pick("best").search.loss)
    print(
        f"classes {TARGET} at {options.flops} of the FLOPs, search loss: STAMP's mask"
        f" {found[0]:.3f}, {options.trials} trials seeded with it {found[1]:.3f};"
        f" lowest L1 {found[2]:.3f}, seeded with that {found[3]:.3f}"
    )


if __name__ == "__main__":
    main()
