"""Networks small enough to score by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.criteria import score_channels
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.space.knowledge import ImportanceScores
from evosearch.surgery.tracing.export import trace


class Stream(nn.Module):
    """Two writers, two readers: `b` reads what `a` writes and adds to it, `c` reads the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 2, 1, bias=False)
        self.b = nn.Conv2d(2, 2, 1, bias=False)
        self.c = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.c((x + self.b(x)).mean((2, 3)))


class Normed(nn.Module):
    """conv -> BN -> ReLU -> conv -> mean."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=0)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu()).mean((2, 3))


def linear_pair(incoming: Any, outgoing: Any) -> nn.Sequential:
    """Two linear layers with a ReLU between, no biases; weights as torch lays them out."""
    into, out = torch.tensor(incoming).float(), torch.tensor(outgoing).float()
    model = nn.Sequential(
        nn.Linear(into.shape[1], into.shape[0], bias=False),
        nn.ReLU(),
        nn.Linear(out.shape[1], out.shape[0], bias=False),
    )
    set_weights(model, {"0": into, "2": out})
    return model


def set_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    with torch.no_grad():
        for module, values in weights.items():
            weight = model.get_parameter(f"{module}.weight")
            weight.copy_(torch.as_tensor(values).float().reshape(weight.shape))


def seen(model: nn.Module, image: Tensor, **options: Any) -> ScoredNetwork:
    """Returns a model as criteria see it; `image` is one, without a batch."""
    found = trace(model, (torch.stack([image, image]),))
    return ScoredNetwork(model=model, groups=found.groups, layers=found.layers, **options)


def scores(
    name: str, network: ScoredNetwork, batches: Sequence[tuple[Tensor, Tensor]], seed: int = 0
) -> ImportanceScores:
    return score_channels([name], network, batches, np.random.default_rng(seed))[name]


def summed(output: Tensor, labels: Tensor) -> Tensor:
    """A loss that is the sum of the outputs."""
    return output.flatten(1).sum(1)
