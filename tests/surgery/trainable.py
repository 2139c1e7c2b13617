"""Small networks of the kinds that are cut while they train, each with what is found in it."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from evosearch.models.zoo import cifar_resnet, digits_resnet
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from tests.surgery.attention import vision_transformer
from tests.surgery.networks import Net, conv, head


def small_mobilenet() -> nn.Module:
    settings = [[1, 8, 1, 1], [3, 16, 2, 2]]
    network = mobilenet_v2(
        num_classes=5, width_mult=0.25, inverted_residual_setting=settings, dropout=0.0
    )
    # The last convolution has 1280 outputs, whatever the width.
    network.features[-1] = nn.Sequential(conv(8, 24, 1, bias=False), nn.BatchNorm2d(24))
    network.classifier = nn.Linear(24, 5)
    return network


def concatenating() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        x = torch.cat([net.left(x), x, net.right(x)], dim=1)
        return net.head(net.bn(x).relu())

    return Net(
        run,
        stem=nn.Sequential(conv(3, 6, bias=False), nn.BatchNorm2d(6)),
        left=conv(6, 4),
        right=conv(6, 5),
        bn=nn.BatchNorm2d(15),
        head=head(15),
    )


def grouped() -> nn.Module:
    """Conv groups that go as a whole, and positions that go in every conv group."""
    return nn.Sequential(
        conv(3, 16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        conv(16, 16, groups=8, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        conv(16, 12, 1),
        conv(12, 24, groups=2, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        head(24),
    )


BUILDS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "digits": (partial(digits_resnet, width=4), (1, 8, 8)),
    "resnet": (partial(cifar_resnet, depth=8), (3, 8, 8)),
    "mobilenet": (small_mobilenet, (3, 16, 16)),
    "concat": (concatenating, (3, 8, 8)),
    "grouped": (grouped, (3, 8, 8)),
    "vit": (vision_transformer, (3, 8, 8)),
}


def built(name: str, seed: int = 0) -> nn.Module:
    """Returns a network with fresh weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BUILDS[name][0]().eval()


def example(name: str) -> tuple[Tensor, ...]:
    return (torch.randn(2, *BUILDS[name][1], generator=torch.Generator().manual_seed(1)),)


@cache
def found(name: str) -> Discovery:
    """Returns what is discovered in a network; shared by tests, and never changed."""
    return discover(built(name), example(name), GroupRules(), seed=3)
