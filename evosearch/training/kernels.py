"""Kernels: weights that are something else while they train, folded before anything is saved.

Each is a parametrisation of torch's (`torch.nn.utils.parametrize`) on weights of convolutions and
linear layers: the forward pass reads what it makes of them, and `fold` leaves just that in plain
modules, under the old names. What they gain is better training (`orepa`) or zeros (`N:M`,
`zeros`), never FLOPs: a card counts the MACs that are not with zeros (`nonzero_macs`).
"""

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evosearch.errors import InputError, unknown_name
from evosearch.surgery.tracing.layer import Layer
from evosearch.training.wiring import Wired

PLAIN = "plain"
"""The name of weights that are what they are."""
DECAY = 2e-4
"""Weight of what pulls a dropped weight towards zero (SR-STE's lambda)."""


class Kernel(nn.Module, ABC):
    """A parametrisation of a weight."""

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Returns what the forward pass reads in place of a weight."""


@final
class Branches(Kernel):
    """A kernel as a sum of branches that training tells apart: `W = sum_b v_b * W_b`.

    Online convolutional reparametrisation (OREPA, Hu et al. 2022, arXiv 2204.00826): branches
    add up before the convolution, not after it, each with a factor v for each output and no
    BatchNorm. Of the paper's branches there are four: the kernel itself; a 1x1 kernel spread over
    all positions; a 1x1 kernel at the centre; and a 1x1 kernel `I + A` before a full one, which
    is all that a 1x1 kernel gets. Here v is 1 for the kernel itself and 0 for the others, so that
    a trained network begins as what it is; the others' weights are drawn (He), else they would
    never move.
    """

    def __init__(self, weight: Tensor, rng: torch.Generator) -> None:
        """Draws the branches of a kernel `(outputs, inputs, ...)`."""
        super().__init__()
        outputs, inputs, *positions = weight.shape
        self._wide = max(positions) > 1
        self.inner = nn.Parameter(torch.zeros(inputs, inputs).to(weight))
        self.full = _drawn((outputs, inputs, *positions), weight, rng)
        if self._wide:
            pointwise = (outputs, inputs, *(1 for _ in positions))
            self.spread = _drawn(pointwise, weight, rng)
            self.centre = _drawn(pointwise, weight, rng)
        scales = torch.zeros(4 if self._wide else 2, outputs, *(1 for _ in weight.shape[1:]))
        scales[0] = 1
        self.scales = nn.Parameter(scales.to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """See `Kernel.forward`."""
        identity = torch.eye(len(self.inner), dtype=weight.dtype, device=weight.device)
        branches = [weight, torch.einsum("om...,mi->oi...", self.full, identity + self.inner)]
        if self._wide:
            branches.append((self.spread / weight[0, 0].numel()).expand_as(weight))
            middle = torch.zeros_like(weight[0, 0])
            middle[tuple(size // 2 for size in middle.shape)] = 1
            branches.append(self.centre * middle)
        return torch.stack([v * w for v, w in zip(self.scales, branches, strict=True)]).sum(0)


@final
class Sparse(Kernel):
    """N of M consecutive inputs at each kernel position, the largest by magnitude.

    Zhou et al. 2021 (arXiv 2102.04010), SR-STE: chosen anew at each step; gradients reach all
    weights as if none were dropped, plus `DECAY` times those that are.
    """

    def __init__(self, keep: int, of: int, dim: int) -> None:
        """Takes N, M, and the dimension that inputs run along, whose size M divides."""
        super().__init__()
        self._keep, self._of, self._dim = keep, of, dim

    def forward(self, weight: Tensor) -> Tensor:
        """See `Kernel.forward`."""
        kept = largest(weight.detach(), self._keep, self._of, self._dim)
        found: Tensor = _StraightThrough.apply(weight, kept)
        return found


def largest(weight: Tensor, keep: int, of: int, dim: int) -> Tensor:
    """Returns where the N largest of each M consecutive weights are, as ones among zeros.

    Of equal ones the first are kept.

    Args:
        weight: of any shape.
        keep: N.
        of: M.
        dim: along which M are taken; M divides its size.
    """
    last = weight.abs().movedim(dim, -1)
    blocks = last.reshape(*last.shape[:-1], -1, of)
    order = blocks.argsort(dim=-1, descending=True, stable=True)
    kept = torch.zeros_like(blocks).scatter_(-1, order[..., :keep], 1.0)
    return kept.flatten(-2).movedim(-1, dim)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(weight, kept)
        return weight * kept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weight, kept = ctx.saved_tensors
        return gradients[0] + DECAY * (1 - kept) * weight, None


@final
class HeldZeros(Kernel):
    """Weights of which some are zero and stay so, for hardware that skips zeros.

    Woo et al. 2021 (doi 10.3390/electronics10111238), whose body could not be read: weights under
    tau are zero, and recovery leaves them so. Here tau is the median of all weights that write
    prunable channels, as for the criterion `zero_keep`.
    """

    kept: Tensor

    def __init__(self, weight: Tensor, tau: float) -> None:
        """Settles which weights are zero."""
        super().__init__()
        self.register_buffer("kept", (weight.detach().abs() >= tau).to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        """See `Kernel.forward`."""
        return weight * self.kept


def register(name: str, network: Wired, rng: torch.Generator) -> frozenset[str]:
    """Makes the weights of a network kernels of a kind, in place.

    Weights that several modules share, or that are parametrised already, stay as they are.

    Args:
        name: of the kernels; see `require_kernels`.
        network: whose channels do not change until the kernels are folded.
        rng: of what is drawn.

    Returns:
        The names of the parameters that weight decay must leave alone.

    Raises:
        InputError: there are no such kernels; or M does not divide the inputs of a layer.
    """
    require_kernels(name, "kernels")
    sparse = _SPARSE.fullmatch(name)
    if sparse:
        _register_sparse(network, int(sparse[1]), int(sparse[2]))
    else:
        KERNELS[name](network, rng)
    return frozenset(
        f"{path}.scales"
        for path, module in network.model.named_modules()
        if isinstance(module, Branches)
    )


def fold(model: nn.Module) -> None:
    """Leaves what kernels stand for in plain modules, under the old names, in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for leaf, parts in list(cast(nn.ModuleDict, module.parametrizations).items()):
                if isinstance(cast(nn.ModuleList, parts)[0], Kernel):
                    parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)


def require_kernels(name: str, where: str) -> None:
    """Checks the name of kernels: one of `KERNELS`, or N:M, such as "2:4".

    Raises:
        InputError: there are no such kernels.
    """
    sparse = _SPARSE.fullmatch(name)
    if sparse and 1 <= int(sparse[1]) < int(sparse[2]):
        return
    if sparse or name not in KERNELS:
        hint = 'N:M with 1 <= N < M, such as "2:4"'
        raise InputError(f"{where}: {unknown_name('kernels', name, KERNELS)}; or {hint}")


def nonzero_macs(model: nn.Module, layers: Sequence[Layer]) -> int:
    """Returns the MACs of a network's layers for one image without those with a zero weight.

    Args:
        model: its kernels are folded.
        layers: all of its layers.
    """
    total = 0
    for layer in layers:
        weight = model.get_parameter(layer.weight)
        total += layer.positions * int(weight.count_nonzero())
    return total


def _register_branches(network: Wired, rng: torch.Generator) -> None:
    for module, leaf, layer in _weights(network):
        # Of transposed convolutions inputs come first, and grouped ones mix nothing across groups.
        if layer.geometry is not None and layer.groups == 1 and layer.writes == 0:
            branches = Branches(getattr(module, leaf), rng)
            parametrize.register_parametrization(module, leaf, branches)


def _register_zeros(network: Wired, rng: torch.Generator) -> None:  # noqa: ARG001
    writing = {m.tensor for group in network.groups for m in network.written(group)}
    found = [part for part in _weights(network) if part[2].weight in writing]
    weights = [getattr(module, leaf).detach().abs().flatten() for module, leaf, _ in found]
    tau = float(np.median(torch.cat(weights).cpu().numpy()))
    for module, leaf, _ in found:
        zeros = HeldZeros(getattr(module, leaf), tau)
        parametrize.register_parametrization(module, leaf, zeros)


def _register_sparse(network: Wired, keep: int, of: int) -> None:
    """Leaves the first layer, the last linear one and depthwise ones dense, as the authors do."""
    linear = [layer.weight for layer in network.layers if layer.geometry is None]
    dense = {network.layers[0].weight, *linear[-1:]}
    chosen = [
        (module, leaf, layer)
        for module, leaf, layer in _weights(network)
        if layer.weight not in dense and layer.reads is not None
    ]
    for module, leaf, layer in chosen:
        inputs = getattr(module, leaf).shape[layer.reads]
        if inputs % of:
            raise InputError(
                f'kernels "{keep}:{of}": {layer.module} reads {inputs} channels, no multiple of'
                f" {of}; set multiple_of = {of} in [groups]"
            )
    for module, leaf, layer in chosen:
        assert layer.reads is not None
        parametrize.register_parametrization(module, leaf, Sparse(keep, of, layer.reads))


KERNELS: dict[str, Callable[[Wired, torch.Generator], None]] = {
    PLAIN: lambda network, rng: None,  # noqa: ARG005
    "orepa": _register_branches,
    "zeros": _register_zeros,
}
"""Every kind of kernels by name, beside N:M."""
_SPARSE = re.compile(r"(\d+):(\d+)")


def _weights(network: Wired) -> Iterator[tuple[nn.Module, str, Layer]]:
    """Yields the weights of layers that only one module has, each with its module and name."""
    model = network.model
    names = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for name, layer in {layer.weight: layer for layer in network.layers}.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        own = dict(module.named_parameters(recurse=False)).get(leaf)
        if own is not None and names[id(own)] == 1:
            yield module, leaf, layer


def _drawn(shape: Sequence[int], like: Tensor, rng: torch.Generator) -> nn.Parameter:
    """Returns a weight drawn as He et al. 2015 do: of variance 2 over the inputs of a filter."""
    drawn = torch.randn(*shape, generator=rng) * (2 / math.prod(shape[1:])) ** 0.5
    return nn.Parameter(drawn.to(like))
