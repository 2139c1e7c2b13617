"""Training and pruning as people write them: a plain loop, and torch-pruning's global recipe."""

import copy
from collections.abc import Collection

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

from evosearch.data.splits import TrainSplit


def plain_epochs(network: nn.Module, train: TrainSplit, size: int, *, epochs: int) -> None:
    """Trains as people write it: SGD, cosine, float32, the images where they lie."""
    place = next(network.parameters()).device
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    steps = -(-len(train) // size) * epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(0)
    network.train()
    for _ in range(epochs):
        for images, labels in train.take(rng.permutation(len(train))).batches(size):
            loss = functional.cross_entropy(network(images.to(place)), labels.to(place))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def torch_pruned(
    model: nn.Module, image: torch.Tensor, ratio: float, groups: Collection[str]
) -> nn.Module:
    """Returns a network that torch-pruning cut to a share of its MACs, by global group norms.

    Args:
        model: not changed.
        image: a batch of one, on the model's device.
        ratio: of the MACs that stay.
        groups: names of the layers whose channels may go, as in the space that is searched.
    """
    network = copy.deepcopy(model)
    kinds = (nn.Linear, nn.Conv2d)
    kept = [m for n, m in network.named_modules() if isinstance(m, kinds) and n not in groups]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        image,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.9,
        iterative_steps=100,
        ignored_layers=kept,
    )
    count = torch_pruning.utils.count_ops_and_params
    base, _ = count(network, image)
    for _ in range(100):
        if count(network, image)[0] <= ratio * base:
            break
        pruner.step()
    return network
