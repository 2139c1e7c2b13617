"""A network in training with its channel groups: what makes each channel, and what reads it.

In difference to what criteria see, weights come with their gradients, and as the forward pass
reads them: one that is parametrised (`kernels`) for what it stands for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

from evosearch.refit.norms import BatchNorm
from evosearch.space.mask import ChannelGroup, Member
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.tracing.layer import Layer


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Wired:
    """A network as penalties see it.

    Attributes:
        model: its weights are looked up by name at each use.
        groups: the channel groups of this model, as narrow as it is.
        layers: all layers of the network.
    """

    model: nn.Module
    groups: Sequence[ChannelGroup]
    layers: Sequence[Layer]

    @classmethod
    def of(cls, model: nn.Module, discovery: Discovery) -> "Wired":
        """Returns a network with the groups and layers that were found in it."""
        return cls(model=model, groups=discovery.space.groups, layers=discovery.layers)

    def tensor(self, name: str) -> Tensor:
        """Returns a weight as the forward pass reads it, with its gradient."""
        owner, _, leaf = name.rpartition(".")
        found: Tensor = getattr(self.model.get_submodule(owner), leaf)
        return found

    def rows(self, group: ChannelGroup, members: Iterable[Member]) -> Tensor:
        """Returns what belongs to each channel in some members, `(channels, elements)`."""
        parts = []
        for member in members:
            values = self.tensor(member.tensor)
            if member not in self._indices:
                self._indices[member] = torch.from_numpy(group.index(member)).to(values.device)
            parts.append(values.movedim(member.dim, 0)[self._indices[member]].flatten(1))
        return torch.cat(parts, dim=1)

    def incoming(self, group: ChannelGroup) -> list[Member]:
        """Returns where channels are made: filters, biases, and the scales and shifts of norms."""
        return [m for m in self._learned(group) if (m.tensor, m.dim) not in self._read]

    def written(self, group: ChannelGroup) -> list[Member]:
        """Returns the filters that make channels, without biases and norms."""
        written = {(layer.weight, layer.writes) for layer in self.layers}
        return [m for m in self._learned(group) if (m.tensor, m.dim) in written]

    def outgoing(self, group: ChannelGroup) -> list[Member]:
        """Returns the weights that read channels."""
        return [m for m in self._learned(group) if (m.tensor, m.dim) in self._read]

    @property
    def scales(self) -> dict[str, Tensor]:
        """The scale of every BatchNorm that has one, by name."""
        return {
            f"{name}.weight": module.weight
            for name, module in self.model.named_modules()
            if isinstance(module, BatchNorm) and module.weight is not None
        }

    @cached_property
    def _indices(self) -> dict[Member, Tensor]:
        """Where members lie, on the model's device; filled as they are read."""
        return {}

    @cached_property
    def _read(self) -> set[tuple[str, int | None]]:
        return {(layer.weight, layer.reads) for layer in self.layers}

    @cached_property
    def _names(self) -> set[str]:
        """The names of what learns; what is parametrised counts as its original."""
        return {
            name.replace("parametrizations.", "").split(".original")[0]
            for name, _ in self.model.named_parameters(remove_duplicate=False)
        }

    def _learned(self, group: ChannelGroup) -> list[Member]:
        return [member for member in group.members if member.tensor in self._names]
