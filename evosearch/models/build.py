"""From a `[model]` section to a network with its weights; two families of residual networks."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, final

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from evosearch.data.paths import find
from evosearch.errors import InputError, unknown_name
from evosearch.models.weights import load_weights
from evosearch.seeding import Stream, integer


class ModelConfig(BaseModel):
    """Which network, and what goes into it.

    Attributes:
        build: "module:callable", "file.py:callable" with the file beside the space file, or
            "torchvision:resnet18".
        input: shape of one image without the batch, or a list of shapes for several inputs.
        weights: safetensors file or checkpoint of tensors, relative to the space file, or else
            to $EVOSEARCH_DATA; "built" where `build` returns a trained network; none where the
            base network is trained here.
        kwargs: arguments of the callable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    build: str
    input: tuple[PositiveInt, ...] | tuple[tuple[PositiveInt, ...], ...] = Field(min_length=1)
    weights: str | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of every input, without the batch."""
        shapes: list[tuple[int, ...]] = [s for s in self.input if isinstance(s, tuple)]
        return tuple(shapes) or (tuple(s for s in self.input if isinstance(s, int)),)


# Building

BUILT = "built"
"""As `weights`: those that `build` gives its network."""


@contextmanager
def torch_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds torch's own generators inside the block and puts them back after it.

    For draws that take no generator: initial weights and dropout.
    """
    place = torch.device(device)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if place.type == "cuda":
            with torch.cuda.device(place):
                torch.cuda.manual_seed(seed)
        yield


def build_model(config: ModelConfig, folder: Path = Path(), *, seed: int = 0) -> nn.Module:
    """Builds the network of a `[model]` section, with its weights where it names any.

    Args:
        config: the section.
        folder: where the space file lies.
        seed: draws the initial weights; it is without effect on a network that loads others.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        InputError: the callable is not found or fails, or the weights do not fit.
    """
    build = resolve_callable(config.build, folder, "[model] build")
    with torch_seeded(integer(seed, Stream.BASE_TRAINING, "initial weights")):
        try:
            model = build(**config.kwargs)
        except Exception as error:
            raise InputError(f"[model] build = {config.build!r}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"[model] build = {config.build!r} returned a {type(model).__name__},"
            " expected a torch.nn.Module"
        )
    if config.weights not in (None, BUILT):
        advice = "put the weights there, or leave the key out to train the network here"
        load_weights(model, find(config.weights, folder, "[model] weights", advice))
    return model.eval()


def resolve_callable(reference: str, folder: Path, where: str) -> Callable[..., Any]:
    """Returns the callable that a space file names.

    Args:
        reference: "module:callable", "file.py:callable" or "torchvision:name".
        folder: where the space file lies, and a `file.py` beside it.
        where: the key that holds the reference, for messages.

    Raises:
        InputError: there is no such module, file or callable, or importing it fails.
    """
    source, _, name = reference.partition(":")
    if not source or not name:
        raise InputError(f"{where} = {reference!r}: expected 'module:callable'")
    try:
        if source == "torchvision":
            module = importlib.import_module("torchvision.models")
        elif source.endswith(".py"):
            module = _import_file(folder / source)
        else:
            module = importlib.import_module(source)
    except Exception as error:
        raise InputError(
            f"{where} = {reference!r}: cannot import {source!r}: {one_line(error)}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError(f"{where}: {unknown_name(f'callable of {source}', name, public)}")
    return found  # type: ignore[no-any-return]


def one_line(error: Exception) -> str:
    """Returns what went wrong in someone else's code: the error's first line, and its type."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _import_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"_evosearch_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# Networks


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
