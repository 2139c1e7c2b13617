"""Small networks, one for each pattern, and the channel groups that must be found in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network to search.

    Attributes:
        build: makes it.
        groups: channel groups that must be found and proven, with their sizes; no others may be.
        frozen: modules whose channels must be frozen, each with a part of the reason.
        shapes: of its inputs, without the batch.
        arrange: makes its arguments of them.
    """

    build: Callable[[], nn.Module]
    groups: Mapping[str, int]
    frozen: Mapping[str, str] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ((3, 8, 8),)
    arrange: Callable[..., tuple[Any, ...]] = lambda *inputs: inputs

    def model(self) -> nn.Module:
        """Returns the network with random weights and BatchNorm statistics, in eval mode."""
        return randomized(self.build())

    def example(self, batch: int = 2) -> tuple[Any, ...]:
        random = torch.Generator().manual_seed(1)
        return self.arrange(
            *(torch.randn(batch, *shape, generator=random) for shape in self.shapes)
        )


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every parameter and statistic a random value near its usual size, in place."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=random)
            elif tensor.ndim > 1 and tensor[0].numel() > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=random)
            else:
                tensor.normal_(0, 0.3, generator=random)
    return model.eval()


class Net(nn.Module):
    """A network from its modules and a function of them and the inputs."""

    def __init__(self, run: Callable[..., Any], **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.run = run

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def head(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 5))


class Residual(nn.Module):
    """A stem, one block with an identity shortcut, one with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.bn = nn.BatchNorm2d(8)
        self.conv1, self.bn1 = conv(8, 6, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, 8, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.bn3 = conv(8, 10, stride=2, bias=False), nn.BatchNorm2d(10)
        self.project = conv(8, 10, 1, stride=2)
        self.head = head(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        x = (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()
        x = (self.project(x) + self.bn3(self.conv3(x))).relu()
        return self.head(x)


class Plain(nn.Module):
    """Two convolutions and a classifier: small enough to count by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.linear = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.conv2(x).relu().flatten(1))


def depthwise() -> nn.Module:
    return nn.Sequential(
        conv(3, 8),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        conv(8, 8, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        conv(8, 16, groups=8),
        conv(16, 6, 1),
        nn.ReLU(),
        head(6),
    )


def concat() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        x = torch.cat([net.left(x), x, net.right(x)], dim=1)
        return net.head(net.bn(x).relu())

    return Net(
        run,
        stem=conv(3, 6),
        left=conv(6, 4),
        right=conv(6, 5),
        bn=nn.BatchNorm2d(15),
        head=head(15),
    )


def flatten() -> nn.Module:
    return nn.Sequential(
        conv(3, 6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 16, 10),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(10, 5),
    )


def squeeze_excite() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        gate = net.up(net.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return net.head(x * gate)

    return Net(run, stem=conv(3, 8), down=conv(8, 4, 1), up=conv(4, 8, 1), head=head(8))


def shared_module() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        return net.head(net.shared(net.shared(x).relu()).relu())

    return Net(run, stem=conv(3, 6), shared=conv(6, 6), head=head(6))


def layer_scale() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        return net.head(x + net.scale * net.conv(x))

    return Net(
        run,
        stem=conv(3, 6),
        conv=conv(6, 6),
        scale=nn.Parameter(torch.full((6, 1, 1), 1e-6)),
        head=head(6),
    )


def unknown_operator() -> nn.Module:
    """The sort moves values between channels: what it reads must stay, what follows need not."""

    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        return net.head(net.after(torch.sort(net.conv(x), dim=1).values).relu())

    return Net(run, stem=conv(3, 6), conv=conv(6, 7), after=conv(7, 8), head=head(8))


PATTERNS = {
    "plain": Case(build=Plain, groups={"conv1": 4, "conv2": 6}),
    "residual": Case(build=Residual, groups={"stem": 8, "conv1": 6, "project": 10}),
    "depthwise": Case(build=depthwise, groups={"0": 8, "7": 6}),
    "concat": Case(build=concat, groups={"stem": 6, "left": 4, "right": 5}),
    "flatten": Case(build=flatten, groups={"0": 6, "4": 10}),
    "squeeze_excite": Case(build=squeeze_excite, groups={"stem": 8, "down": 4}),
    "shared_module": Case(build=shared_module, groups={"stem": 6}),
    "layer_scale": Case(build=layer_scale, groups={"stem": 6}),
    "unknown_operator": Case(
        build=unknown_operator, groups={"stem": 6, "after": 8}, frozen={"conv": "sort"}
    ),
}
