"""Five networks as users bring them, in a file that needs torch alone; tests copy it."""

import torch
from torch import Tensor, nn


class VGG(nn.Module):
    """Flattens a map that is larger than 1 x 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *unit(3, 12), nn.MaxPool2d(2), *unit(12, 16), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * 4 * 4, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))  # fails where x lies channels last


class Inverted(nn.Module):
    """MobileNetV2's block: wide and depthwise inside, a shortcut where the sizes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = 3 * inputs
        self.expand = nn.Sequential(*unit(inputs, inner, 1))
        self.depthwise = nn.Sequential(*unit(inner, inner, 3, stride=stride, groups=inner))
        self.project = nn.Sequential(*unit(inner, outputs, 1)[:2])
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class SqueezeExcite(nn.Module):
    """A grouped convolution, and a gate on its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grouped = nn.Sequential(*unit(channels, channels, 3, groups=4))
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.grouped(x)
        gate = self.up(self.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x + y * gate


class Dense(nn.Module):
    """DenseNet's block: each layer reads all that came before."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(inputs + i * growth),
                nn.ReLU(),
                nn.Conv2d(inputs + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Shuffle(nn.Module):
    """ShuffleNet's block: half of the channels go by, then both halves are interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *unit(half, half, 1),
            *unit(half, half, 3, groups=half)[:2],
            *unit(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.branch(right)], 1)
        batch, channels, height, width = x.shape
        x = x.reshape(batch, 2, channels // 2, height, width).transpose(1, 2)
        return x.reshape(batch, channels, height, width)


def unit(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()


def headed(*body: nn.Module, channels: int) -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
    return nn.Sequential(*unit(3, 16), *body, *head)


def vgg() -> nn.Module:
    return VGG()


def mobilenet() -> nn.Module:
    return headed(Inverted(16, 16, 1), Inverted(16, 24, 2), Inverted(24, 24, 1), channels=24)


def squeeze() -> nn.Module:
    return headed(SqueezeExcite(16), nn.MaxPool2d(2), SqueezeExcite(16), channels=16)


def densenet() -> nn.Module:
    return headed(Dense(16, 8, 3), nn.BatchNorm2d(40), nn.ReLU(), channels=40)


def shufflenet() -> nn.Module:
    return headed(Shuffle(16), Shuffle(16), channels=16)
