"""Gates that learn: a factor on each channel, found from the image, thrown away after training.

A gate is a small network: the features of some channels, each averaged over its positions, go
through a bottleneck, and give a factor for each of them. Gates hang in the network until they are
discarded, which leaves it as it was: their parameters learn with the others, are saved with them
in a checkpoint, and are in the state of the best epoch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.calling import Arguments
from evosearch.errors import InputError
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.surgery.cut_attention import call_as_before, call_projections
from evosearch.surgery.reach import Reached, by_image, channel_dim, reached, require_in_sight
from evosearch.surgery.tracing.export import batch_size
from evosearch.surgery.tracing.layer import Layer

REDUCTION = 16
"""Channels for each unit of a bottleneck."""

_ATTRIBUTE = "learned_gates"

Share = Callable[[Mapping[str, Tensor]], Tensor]
"""Widths of groups, which need not be whole -> cost as a share of the budget, with gradient."""


class Excitation(nn.Module):
    """Features of channels -> a logit for each, by way of a sixteenth as many units.

    Ours is what it begins with: the last matrix at zero, so that what tells channels apart is
    learned, and biases of units at one, so that few are dead. Channels that are gone are left out
    of the sums, as if their features were zero.
    """

    def __init__(self, channels: int, rng: torch.Generator, bias: Tensor | None) -> None:
        """Draws the first matrix (He et al. 2015).

        Args:
            channels: how many there are.
            rng: of the CPU.
            bias: of the logits at first, `(channels,)`; None is a network without biases.
        """
        super().__init__()
        units = max(1, channels // REDUCTION)
        drawn = torch.randn(units, channels, generator=rng) * (2 / channels) ** 0.5
        self.down, self.up = nn.Parameter(drawn), nn.Parameter(torch.zeros(channels, units))
        self.down_bias = None if bias is None else nn.Parameter(torch.ones(units))
        self.up_bias = None if bias is None else nn.Parameter(bias)

    def forward(self, features: Tensor, kept: Tensor) -> Tensor:
        """Returns logits `(images, kept channels)` of features of that shape.

        Args:
            features: of the channels that are left.
            kept: which these are, `(kept channels,)`.
        """
        units = functional.linear(features, self.down[:, kept], self.down_bias).relu()
        bias = None if self.up_bias is None else self.up_bias[kept]
        return functional.linear(units, self.up[kept], bias).to(self.up)  # not in bfloat16


class Gates(nn.Module, ABC):
    """Gates on the channels of one network, which it has as a part until they are discarded.

    After a forward pass they know the factors that it was made with.
    """

    along: ClassVar[Literal["reads", "writes"]]
    """Whether gates are on what modules read, or on what they write."""
    decays: ClassVar[bool]
    """Whether weight decay takes part in how they learn."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        layers: Sequence[Layer],
        rng: torch.Generator,
    ) -> None:
        """Hangs gates into a network.

        Args:
            model: gets hooks, and these gates as a part of one of its layers.
            groups: its channel groups; each has its gates.
            layers: all of its layers.
            rng: of what is drawn, of the CPU.

        Raises:
            InputError: a layer's weight does not belong to a linear or convolution module.
        """
        super().__init__()
        self._images = 0
        self._factors: dict[str, list[Tensor]] = {}
        self._whole = {group.name: group.size for group in groups}
        self._kept = {name: torch.arange(size) for name, size in self._whole.items()}
        self._places = reached(model, groups, layers, self.along)
        self.blocks = self.drawn(self._places, rng)
        for name in self._places:
            does = "reads" if self.along == "reads" else "writes"
            require_in_sight(name, model.get_submodule(name), does)
        first = model.get_submodule(next(iter(self._places)))
        self._owner = (first,)  # in a tuple, or it would be a part of its part
        first.add_module(_ATTRIBUTE, self.to(next(first.parameters())))
        self._handles = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for name in self._places:
            self._handles.append(self.hang(model.get_submodule(name), name))
        self._attention = call_projections(model)

    @abstractmethod
    def drawn(self, places: Reached, rng: torch.Generator) -> nn.ModuleDict:
        """Returns the small networks by what `key_of` makes of a name."""

    @abstractmethod
    def hang(self, module: nn.Module, name: str) -> torch.utils.hooks.RemovableHandle:
        """Hooks a module whose channels have gates."""

    def term(self, share: Share) -> Tensor | None:  # noqa: ARG002
        """Returns what the last pass adds to the objective; `share` is of the budget."""
        return None

    @property
    def factors(self) -> dict[str, Tensor]:
        """Group name -> the gates of the last pass before any rounding, `(images, channels)`.

        Where a group has several, their mean.

        Raises:
            InputError: no module with a gate on a group was called.
        """
        for group in self._kept:
            if group not in self._factors:
                raise InputError(
                    f"group {group!r}: none of the modules with its gates was called; exclude what"
                    " writes it"
                )
        return {name: torch.stack(self._factors[name]).mean(0) for name in self._kept}

    def follow(
        self, model: nn.Module, groups: Sequence[ChannelGroup], layers: Sequence[Layer], mask: Mask
    ) -> None:
        """Goes on with the channels that a cut left; the gates of the others are not read.

        Args:
            model: as it is now.
            groups: of it.
            layers: of it.
            mask: the channels that are left of those that these gates began with.
        """
        self._places = reached(model, groups, layers, self.along)
        self._kept = {name: torch.from_numpy(bits.nonzero()[0]) for name, bits in mask.items()}
        self._factors = {}

    def discard(self) -> None:
        """Leaves the network as if there had been no gates."""
        for handle in self._handles:
            handle.remove()
        call_as_before(self._attention)
        (owner,) = self._owner
        delattr(owner, _ATTRIBUTE)
        for parameter in self.parameters():
            parameter.grad = None  # so that optimizers leave them alone

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._images, self._factors = batch_size(Arguments(args, kwargs)), {}


def gates_of(model: nn.Module) -> Gates | None:
    """Returns the gates that hang in a network, if there are any."""
    return next((module for module in model.modules() if isinstance(module, Gates)), None)


def key_of(name: str) -> str:
    """Returns a key of a `ModuleDict`: without dots, and none of its own attributes."""
    return "of/" + name.replace(".", "/")


def pooled(module: nn.Module, values: Tensor, images: int) -> Tensor:
    """Returns the mean over positions of what a module reads or gives, `(images, channels)`."""
    first = values.movedim(channel_dim(module), 1)
    flat = first.flatten(2).mean(2) if first.ndim > 2 else first
    return by_image(flat, images).mean(1)


def scaled(module: nn.Module, values: Tensor, positions: Tensor, factors: Tensor) -> Tensor:
    """Returns what a module reads or gives with some of its channels times factors.

    Args:
        module: whose values they are.
        values: `(rows, ...)`, each image's rows next to each other.
        positions: along its `channel_dim`.
        factors: `(images, positions)`.
    """
    dim = channel_dim(module) % values.ndim
    rows = factors.repeat_interleave(len(values) // len(factors), dim=0)
    every = rows.new_ones(len(values), values.shape[dim]).index_copy(1, positions, rows)
    shape = [1] * values.ndim
    shape[0], shape[dim] = every.shape
    return values * every.reshape(shape).to(values)
