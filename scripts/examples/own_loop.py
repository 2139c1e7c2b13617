"""Search a network that is an object, train what is found in a loop of one's own, and finish it.

.venv/bin/python scripts/examples/own_loop.py [--trials 20] [--epochs 30] [--out RUN]
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import evosearch


def make_model() -> nn.Module:
    def unit(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*unit(1, 16), *unit(16, 32), nn.MaxPool2d(2), *unit(32, 32), *head)


def fit(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, lr: float) -> None:
    """Trains a network as anybody would: nothing here is evosearch's."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    batches = -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * batches)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).chunk(batches):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target).long()
    train, held_out, test = (
        (images[part], labels[part])
        for part in (slice(0, 1000), slice(1000, 1300), slice(1300, None))
    )
    model = make_model()
    fit(model, *train, options.epochs, lr=0.1)
    run = evosearch.search(
        model=model,
        train=train,
        test=test,
        held_out={"search": held_out},
        flops="30%",
        trials=options.trials,
        out=options.out,
    )
    network = run.network(at="flops=30%")
    fit(network, *train, options.epochs, lr=0.05)
    for done in run.finish(network).networks:
        share = done.cost.relative_to(run.study.header.base_cost)["macs"]
        print(f"{done.name}: {share:.1%} of the FLOPs, test accuracy {done.test.accuracy_text} %")


if __name__ == "__main__":
    main()
