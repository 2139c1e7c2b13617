"""The `[model]` section of a space file, and the network that it builds, with its weights."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from evosearch.callables import one_line, resolve_callable
from evosearch.calling import arguments, fits
from evosearch.errors import InputError
from evosearch.files import find
from evosearch.machine import torch_seeded
from evosearch.models.weights import load_weights
from evosearch.seeding import Stream, integer

Shape = tuple[PositiveInt, ...]


class ModelConfig(BaseModel):
    """Which network, and what goes into it.

    Attributes:
        build: "module:callable", "file.py:callable" with the file beside the space file,
            "torchvision:resnet18" or "timm:resnet18"; torchvision's networks with a backbone of
            its own weights are built without these; "object:model" is the one that a program gave.
        input: shape of one image without the batch, or a list of shapes for several inputs, or
            shapes by name: keywords of the forward pass, or else one dict that it takes.
        part: name of a module, or a list of such: they alone are traced and cut, and what they
            give and all that is outside them stays. Without it: all that torch.export can follow.
        weights: safetensors file or checkpoint of tensors, relative to the space file, or else
            to $EVOSEARCH_DATA; "built" where `build` returns a trained network; none where the
            base network is trained here.
        kwargs: arguments of the callable.
        accuracy: of these weights, in percent; a search whose base network is far under it stops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    build: str
    input: Shape | tuple[Shape, ...] | dict[str, Shape] = Field(min_length=1)
    part: str | tuple[str, ...] | None = None
    weights: str | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)
    accuracy: float | None = Field(default=None, gt=1, le=100)

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of every input, without the batch."""
        if isinstance(self.input, dict):
            return tuple(self.input.values())
        shapes: list[tuple[int, ...]] = [s for s in self.input if isinstance(s, tuple)]
        return tuple(shapes) or (tuple(s for s in self.input if isinstance(s, int)),)

    @property
    def takes_one_tensor(self) -> bool:
        """Whether the network is called with one tensor, and that not by name."""
        return len(self.input_shapes) == 1 and not isinstance(self.input, dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """The modules that alone are traced; none is the whole network."""
        return (self.part,) if isinstance(self.part, str) else self.part or ()

    def inputs(
        self, draw: Callable[[tuple[int, ...]], Tensor]
    ) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """Returns inputs of the network, each made from its shape without the batch."""
        if isinstance(self.input, dict):
            return {name: draw(shape) for name, shape in self.input.items()}
        return tuple(map(draw, self.input_shapes))


BACKBONE = "weights_backbone"
"""Argument of torchvision's builders that fetches trained weights unless it is None."""
BUILT = "built"
"""As `weights`: those that `build` gives its network."""


def build_model(config: ModelConfig, folder: Path = Path(), *, seed: int = 0) -> nn.Module:
    """Builds the network of a `[model]` section, with its weights where it names any.

    Args:
        config: the section.
        folder: where the space file lies.
        seed: draws the initial weights; it is without effect on a network that loads others.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        InputError: the callable is not found or fails, the network takes other inputs, or the
            weights do not fit.
    """
    build = resolve_callable(config.build, folder, "[model] build")
    given = config.kwargs
    if config.build.startswith("torchvision:") and BACKBONE in signature(build).parameters:
        given = {BACKBONE: None, **given}
    with torch_seeded(integer(seed, Stream.BASE_TRAINING, "initial weights")):
        try:
            model = build(**given)
        except Exception as error:
            raise InputError(f"[model] build = {config.build!r}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"[model] build = {config.build!r} returned a {type(model).__name__},"
            " expected a torch.nn.Module"
        )
    _require_taken(model, config)
    weights = find_weights(config, folder)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def _require_taken(model: nn.Module, config: ModelConfig) -> None:
    """Checks that a network's forward pass can be called with as many inputs, and by their names.

    Raises:
        InputError: it cannot.
    """
    found = arguments(model, config.inputs(lambda _: torch.empty(0)))
    if fits(model, *found.args, **found.kwargs):
        return
    given = config.input
    shown = f"names {', '.join(given)}" if isinstance(given, dict) else f"{len(found.args)} inputs"
    takes = f"{type(model).__name__} takes ({', '.join(signature(model.forward).parameters)})"
    raise InputError(f"[model] input has {shown}, but the forward pass of {takes}")


def find_weights(config: ModelConfig, folder: Path) -> Path | None:
    """Returns the weights file of a `[model]` section; None where it names none.

    Args:
        config: the section.
        folder: where the space file lies.

    Raises:
        InputError: there is no such file.
    """
    if config.weights is None or config.weights == BUILT:
        return None
    advice = "put the weights there, or leave the key out to train the network here"
    return find(config.weights, folder, "[model] weights", advice)
