"""Prune a weightless network by its discriminators' scores, and train what is left.

A weightless network has tables in the place of weights: every class has a discriminator of
filters, each a table that a few bits of the image address, and the class whose filters fire most
often wins. A filter is worth how much oftener it fires for its own class than for others (Susskind
et al. 2023, ULEEN, arXiv 2304.10618); the same filters stay in all discriminators.

.venv/bin/python scripts/examples/weightless.py [--keep 0.3] [--epochs 10]
"""

import argparse
import copy

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

CLASSES, LEVELS, BITS = 10, 6, 6
"""Classes, thermometer bits of a pixel, and bits that address a filter."""


class Weightless(nn.Module):
    """Discriminators of filters: addresses (images, filters) -> responses (images, classes)."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.tables = nn.Parameter(torch.empty(CLASSES, filters, 2**BITS).uniform_(-0.1, 0.1))
        self.bias = nn.Parameter(torch.zeros(CLASSES))

    def firing(self, addresses: Tensor) -> Tensor:
        """Returns which filters fire: (images, classes, filters)."""
        entries = self.tables[:, torch.arange(addresses.shape[1]), addresses].transpose(0, 1)
        # Backwards the gradient passes the threshold as if it were not there.
        return (entries > 0).to(entries.dtype) + entries - entries.detach()

    def forward(self, addresses: Tensor) -> Tensor:
        return self.firing(addresses).sum(2) + self.bias

    def keeping(self, filters: Tensor) -> "Weightless":
        """Returns the network of some filters alone, the same in every discriminator."""
        cut = copy.deepcopy(self)
        cut.tables = nn.Parameter(self.tables.detach()[:, filters])
        return cut


def scores(fires: Tensor, labels: Tensor) -> Tensor:
    """Returns each filter's worth (classes, filters): its class counts for it, others against."""
    classes = fires.shape[1]
    own = functional.one_hot(labels, classes).to(fires.dtype)
    return torch.einsum("xcf,xc->cf", fires, classes * own - 1)


def train(network: Weightless, addresses: Tensor, labels: Tensor, epochs: int) -> None:
    """Minimises the cross-entropy of the responses, softened by the number of filters."""
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    softness = addresses.shape[1] ** 0.5
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(64):
            loss = functional.cross_entropy(network(addresses[batch]) / softness, labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()


def accuracy(network: Weightless, addresses: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return 100 * (network(addresses).argmax(1) == labels).float().mean().item()


def encoded(order: Tensor) -> Tensor:
    """Returns the addresses of the digits (images, filters): bits of pixels, in tuples."""
    pixels = load_digits().images.reshape(-1, 64)
    levels = np.quantile(pixels[pixels > 0], np.arange(1, LEVELS + 1) / (LEVELS + 1))
    bits = torch.from_numpy((pixels[:, :, None] > levels).reshape(len(pixels), -1))[:, order]
    return (bits.reshape(len(pixels), -1, BITS) * 2 ** torch.arange(BITS)).sum(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    addresses = encoded(torch.randperm(64 * LEVELS))
    labels = torch.from_numpy(load_digits().target)
    fit, test = slice(0, 1300), slice(1300, None)

    network = Weightless(addresses.shape[1])
    train(network, addresses[fit], labels[fit], options.epochs)
    whole = accuracy(network, addresses[test], labels[test])
    with torch.no_grad():
        worth = scores(network.firing(addresses[fit]), labels[fit]).amax(0)
    count = max(1, round(options.keep * len(worth)))

    found = []
    for kept in (worth.topk(count).indices, torch.randperm(len(worth))[:count]):
        cut = network.keeping(kept)
        found.append(accuracy(cut, addresses[test][:, kept], labels[test]))
        train(cut, addresses[fit][:, kept], labels[fit], options.epochs)
        found.append(accuracy(cut, addresses[test][:, kept], labels[test]))
    print(
        f"test accuracy {whole:.1f} % with {len(worth)} filters; with the best {count}"
        " {:.1f} %, trained {:.1f} %; with any {:.1f} %, trained {:.1f} %".format(*found)
    )


if __name__ == "__main__":
    main()
