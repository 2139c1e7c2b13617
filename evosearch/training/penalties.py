"""Penalties: losses added to a task's by name, which make channels easy to drop.

A penalty is built of a network as it is now, at the beginning of each epoch and after each cut; it
holds nothing that the weights of that moment do not determine.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from evosearch.errors import InputError, unknown_name
from evosearch.training.wiring import Wired

EPSILON = 1e-12
"""Added to squares under a root, so that its gradient is finite at zero."""
LOWEST = 0.1
"""Share of a group's channels that `lowest_l1` is about."""
TAU = 1.0
"""Weight of the plain sum in `polarization`, against the spread."""


class Penalty(ABC):
    """A loss on the weights of one network."""

    source: ClassVar[str]
    """The publication, and what is remembered of it or this program's own."""
    eased: ClassVar[bool] = False
    """Whether it counts less as a tolerated drop of accuracy is used up."""

    def __init__(self, network: Wired) -> None:
        """Takes the network as it is now.

        Raises:
            InputError: it has nothing that this penalty is about.
        """
        self._network = network

    @abstractmethod
    def __call__(self) -> Tensor:
        """Returns the penalty on the weights as they are, a scalar with gradient."""

    def after_step(self) -> None:  # noqa: B027 (most have nothing to do)
        """Puts weights back to where the penalty wants them, after an optimizer's step."""

    def undecayed(self) -> frozenset[str]:
        """Returns the names of parameters that weight decay must leave alone."""
        return frozenset()


@final
class GroupLasso(Penalty):
    """L2 norm of all that makes a channel, plus that of all that reads it, summed over channels.

    `sum_j (|in_j|_2 + |out_j|_2)`. Biases and the scale and shift of BatchNorms are in `in_j`:
    without the scale, a network shrinks its filters and grows its scales.
    """

    source = (
        "Pan et al. 2016 (DropNeuron), arXiv 1606.07326, for linear layers; coupled groups ours"
    )

    def __call__(self) -> Tensor:
        """See `Penalty`."""
        network, parts = self._network, []
        for group in network.groups:
            for members in (network.incoming(group), network.outgoing(group)):
                if members:
                    parts.append(_norms(network.rows(group, members)).sum())
        return torch.stack(parts).sum()


@final
class Orthogonality(Penalty):
    """Squared distance of each convolution's filters, scaled to unit length, from orthogonality.

    `sum_layers |U U' - I|_F^2 / n^2` over all ungrouped convolutions, U the n filters. Without
    the unit length it would fight weight decay and criteria that go by magnitude. With more
    filters than elements in one it cannot reach zero.
    """

    source = (
        "Singh et al. 2019 (adaptive filter pruning), arXiv 1905.04446, as remembered, not checked"
        " against the source; the division by n^2 ours"
    )

    def __init__(self, network: Wired) -> None:
        """See `Penalty`."""
        super().__init__(network)
        self._kernels = {
            layer.weight: layer.writes
            for layer in network.layers
            if layer.geometry is not None and layer.groups == 1
        }
        if not self._kernels:
            raise InputError("penalty 'orthogonality': the network has no ungrouped convolution")

    def __call__(self) -> Tensor:
        """See `Penalty`."""
        tensors = [self._network.tensor(n).movedim(dim, 0) for n, dim in self._kernels.items()]
        return torch.stack([distance_from_orthogonal(kernel) for kernel in tensors]).sum()


def distance_from_orthogonal(kernel: Tensor) -> Tensor:
    """Returns `|U U' - I|_F^2 / n^2` of a kernel's n filters; see `Orthogonality`.

    Args:
        kernel: `(filters, ...)`.
    """
    filters = kernel.flatten(1)
    units = filters / _norms(filters)[:, None]
    identity = torch.eye(len(units), dtype=units.dtype, device=units.device)
    return (units @ units.T - identity).square().sum() / len(units) ** 2


@final
class LowestL1(Penalty):
    """Absolute weights of the filters that write the weakest channels, `LOWEST` of each group.

    Which those are is settled when the penalty is built, by the L1 norms of that moment; at
    least one of each group. Under a tolerated drop its weight is in proportion to what is left.
    """

    eased = True

    source = (
        "Singh et al. 2019 (adaptive filter pruning), arXiv 1905.04446, as remembered, not checked"
        " against the source"
    )

    def __init__(self, network: Wired) -> None:
        """See `Penalty`."""
        super().__init__(network)
        self._weakest: dict[str, Tensor] = {}
        with torch.no_grad():
            for group in network.groups:
                norms = network.rows(group, network.written(group)).abs().sum(1)
                count = max(1, int(LOWEST * group.size))
                self._weakest[group.name] = norms.argsort(stable=True)[:count]

    def __call__(self) -> Tensor:
        """See `Penalty`."""
        network = self._network
        parts = [
            network.rows(group, network.written(group))[self._weakest[group.name]].abs().sum()
            for group in network.groups
        ]
        return torch.stack(parts).sum()


@final
class BNL1(Penalty):
    """Absolute scales of all BatchNorms, summed; usual weights are 1e-4 (VGG), 1e-5 (ResNet)."""

    source = "Liu et al. 2017 (network slimming), arXiv 1708.06519"

    def __init__(self, network: Wired) -> None:
        """See `Penalty`."""
        super().__init__(network)
        _require_scales(network, "bn_l1")

    def __call__(self) -> Tensor:
        """See `Penalty`."""
        return torch.cat(list(self._network.scales.values())).abs().sum()


@final
class Polarization(Penalty):
    """Scales of BatchNorms driven to both ends: some to nothing, the others to one value.

    `tau |gamma|_1 - |gamma - mean|_1`, the mean over all scales of the network and with gradient.
    After each step scales are clamped to [0, 1], so it is for networks that train from there;
    weight decay leaves them alone. The usual weight is 1e-4.
    """

    source = "Zhuang et al. 2020, NeurIPS (neuron-level structured pruning by polarization)"

    def __init__(self, network: Wired) -> None:
        """See `Penalty`."""
        super().__init__(network)
        _require_scales(network, "polarization")

    def __call__(self) -> Tensor:
        """See `Penalty`."""
        scales = torch.cat(list(self._network.scales.values()))
        return TAU * scales.abs().sum() - (scales - scales.mean()).abs().sum()

    @torch.no_grad()
    def after_step(self) -> None:
        """See `Penalty.after_step`."""
        for scale in self._network.scales.values():
            scale.clamp_(0, 1)

    def undecayed(self) -> frozenset[str]:
        """See `Penalty.undecayed`."""
        return frozenset(self._network.scales)


PENALTIES: dict[str, type[Penalty]] = {
    "group_lasso": GroupLasso,
    "orthogonality": Orthogonality,
    "lowest_l1": LowestL1,
    "bn_l1": BNL1,
    "polarization": Polarization,
}
"""Every penalty by name."""


@final
class Penalties:
    """Several penalties together, each times its weight.

    Attributes:
        undecayed: names of the parameters that weight decay must leave alone.
    """

    def __init__(self, weights: Mapping[str, float], network: Wired) -> None:
        """Builds the penalties of a network as it is now.

        Args:
            weights: name -> weight beside the task's loss; not negative.
            network: what is penalised.

        Raises:
            InputError: the network has nothing that a penalty is about.
        """
        self._parts = [(PENALTIES[name](network), weight) for name, weight in weights.items()]
        none: frozenset[str] = frozenset()
        self.undecayed = none.union(*(penalty.undecayed() for penalty, _ in self._parts))

    def __call__(self) -> Tensor | float:
        """Returns the weighted sum on the weights as they are."""
        return sum(weight * penalty() for penalty, weight in self._parts)

    def after_step(self) -> None:
        """Puts weights back to where the penalties want them; after each optimizer step."""
        for penalty, _ in self._parts:
            penalty.after_step()


def require_penalties(weights: Mapping[str, float], where: str) -> None:
    """Checks what a space file says of penalties.

    Args:
        weights: name -> weight of the penalty beside the task's loss.
        where: the section, for messages.

    Raises:
        InputError: a name is unknown, or a weight is negative.
    """
    for name, weight in weights.items():
        if name not in PENALTIES:
            raise InputError(f"{where}: {unknown_name('penalty', name, PENALTIES)}")
        if not 0 <= weight < float("inf"):
            raise InputError(f"{where} {name} = {weight:g}: expected a weight of 0 or more")


def _norms(rows: Tensor) -> Tensor:
    return (rows.square().sum(1) + EPSILON).sqrt()


def _require_scales(network: Wired, name: str) -> None:
    if not network.scales:
        raise InputError(f"penalty {name!r}: the network has no BatchNorm with a scale")
