"""Networks that ship with the program: residual networks and VGG-16 for small images."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from evosearch.errors import InputError


@final
class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, added to a shortcut (He et al. 2016, section 3).

    Where the shape changes, the shortcut is either a 1x1 convolution with BatchNorm (option B)
    or every second pixel, padded with channels of zeros (option A).
    """

    def __init__(self, inputs: int, width: int, *, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 1 and inputs == width:
            return
        if projection:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        else:
            self.shortcut = PaddedShortcut(stride, (width - inputs) // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Maps `(images, inputs, height, width)` to `(images, width, height', width')`."""
        hidden = functional.relu(self.bn1(self.conv1(images)))
        hidden = self.bn2(self.conv2(hidden))
        return functional.relu(hidden + self.shortcut(images))


@final
class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, with `padding` channels of zeros before and after."""

    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding

    def forward(self, images: Tensor) -> Tensor:
        """Maps `(images, c, height, width)` to `(images, c + 2 padding, height', width')`."""
        pixels = images[:, :, :: self.stride, :: self.stride]
        return functional.pad(pixels, (0, 0, 0, 0, self.padding, self.padding))


@final
class ResNet(nn.Module):
    """A stem, stages of residual blocks, each after the first at half the size, and a classifier.

    Parameters are named as in the common CIFAR ResNets: `conv1`, `bn1`, `layer1.0.conv1`, ...,
    `linear`.
    """

    def __init__(
        self, *, channels: int, widths: Sequence[int], blocks: int, classes: int, projection: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = [f"layer{number + 1}" for number in range(len(widths))]
        inputs = widths[0]
        for number, (stage, width) in enumerate(zip(self.stages, widths, strict=True)):
            layers = []
            for block in range(blocks):
                stride = 2 if number > 0 and block == 0 else 1
                layers.append(ResidualBlock(inputs, width, stride=stride, projection=projection))
                inputs = width
            self.add_module(stage, nn.Sequential(*layers))
        self.linear = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Maps `(images, channels, height, width)` to logits `(images, classes)`."""
        hidden = functional.relu(self.bn1(self.conv1(images)))
        for stage in self.stages:
            hidden = self.get_submodule(stage)(hidden)
        logits: Tensor = self.linear(hidden.mean((2, 3)))
        return logits


def digits_resnet(width: int = 16, blocks: int = 1) -> ResNet:
    """Returns a small ResNet for 8x8 grey images of ten classes, with projection shortcuts.

    Args:
        width: channels of the first of three stages; each next stage has twice as many.
        blocks: residual blocks per stage.
    """
    return ResNet(
        channels=1,
        widths=[width, 2 * width, 4 * width],
        blocks=blocks,
        classes=10,
        projection=True,
    )


def cifar_resnet(depth: int = 20, classes: int = 10) -> ResNet:
    """Returns the CIFAR ResNet of He et al. 2016 (section 4.2), with padded shortcuts (option A).

    Args:
        depth: layers with weights; 6n + 2 for n blocks in each of the three stages.
        classes: outputs.

    Raises:
        InputError: `depth` is not 6n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise InputError(f"depth must be 6n + 2, such as 20 or 56, not {depth}")
    return ResNet(
        channels=3, widths=[16, 32, 64], blocks=blocks, classes=classes, projection=False
    )


def cifar_vgg16_bn(classes: int = 10) -> nn.Sequential:
    """Returns VGG-16 with BatchNorm for 32x32 images: thirteen convolutions, one linear layer.

    Configuration D of Simonyan and Zisserman 2015, with the classifier that is usual on CIFAR.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for stage, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(stage):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU(inplace=True)]
            inputs = width
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, classes))
