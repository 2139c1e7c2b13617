"""Folding changes how a network computes, and nothing of what."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evosearch.models.zoo import cifar_resnet
from evosearch.refit.folding import fold_batchnorms
from evosearch.surgery.tracing.export import trace
from tests.surgery.networks import Net, conv, head, randomized


def folded(model: nn.Module, example: Tensor) -> tuple[nn.Module, int]:
    """Returns a model with its BatchNorms folded, and how many of them were."""
    layers = trace(model, (example,)).layers
    result = copy.deepcopy(model)
    fold_batchnorms(result, layers)
    return result, norms_of(model) - norms_of(result)


def norms_of(model: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model.modules())


def line(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules, nn.ReLU(), head(4))


class NormAndActivation(nn.BatchNorm2d):
    """More than a BatchNorm, as timm has one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def read_twice() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.conv(x)
        return net.head(net.norm(y) + y)

    return Net(run, conv=conv(3, 4), norm=nn.BatchNorm2d(4), head=head(4))


def called_twice() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.conv(net.stem(x))
        return net.head(net.norm(net.conv(y)) + y)

    return Net(run, stem=conv(3, 4), conv=conv(4, 4), norm=nn.BatchNorm2d(4), head=head(4))


CASES = {
    "convolution": (lambda: line(conv(3, 4), nn.BatchNorm2d(4)), 1),
    "without a bias": (lambda: line(conv(3, 4, bias=False), nn.BatchNorm2d(4)), 1),
    "without weights of its own": (lambda: line(conv(3, 4), nn.BatchNorm2d(4, affine=False)), 1),
    "grouped": (lambda: line(conv(3, 4), conv(4, 4, groups=4), nn.BatchNorm2d(4)), 1),
    "transposed": (lambda: line(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), 0),
    "statistics of the batch": (
        lambda: line(conv(3, 4), nn.BatchNorm2d(4, track_running_stats=False)),
        0,
    ),
    "a subclass": (lambda: line(conv(3, 4), NormAndActivation(4)), 0),
    "something between": (lambda: line(conv(3, 4), nn.ReLU(), nn.BatchNorm2d(4)), 0),
    "read twice": (read_twice, 0),
    "called twice": (called_twice, 0),
    "linear": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.ReLU()),
        1,
    ),
    "a residual network": (lambda: cifar_resnet(depth=8), 7),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs_stay(name: str) -> None:
    build, count = CASES[name]
    torch.manual_seed(0)
    model = randomized(build()).double()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    result, gone = folded(model, images)
    assert gone == count
    with torch.no_grad():
        torch.testing.assert_close(result(images), model(images), rtol=1e-9, atol=1e-9)
