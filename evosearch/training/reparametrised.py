"""Kernels in a network, by name: which weights become what, folded before anything is saved.

`fold` leaves just what the forward pass reads in plain modules, under the old names. A card counts
the MACs that are not with zeros (`nonzero_macs`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import cast, final

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from evosearch.errors import InputError, unknown_name
from evosearch.surgery.tracing.layer import Layer
from evosearch.training.kernels import Branches, HeldZeros, Kernel, Sparse
from evosearch.training.parts import Host, Part
from evosearch.training.wiring import Wired

PLAIN = "plain"
"""The name of weights that are what they are."""


@final
class Reparametrised(Part):
    """The part of a training whose network has kernels, until `fold`; it cannot be cut."""

    def __init__(self, name: str, rng: torch.Generator) -> None:
        """Takes the name of the kernels; what they begin with is drawn from `rng`."""
        self._name, self._rng = name, rng
        self._undecayed = frozenset[str]()

    def joined(self, training: Host) -> None:
        """See `Part.joined`; the training must know its channel groups."""
        discovery = training.discovery
        if discovery is None:
            raise ValueError("kernels need the network's channel groups")
        self._undecayed = register(self._name, Wired.of(training.model, discovery), self._rng)

    def undecayed(self) -> frozenset[str]:
        """See `Part.undecayed`."""
        return self._undecayed


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
    require_fit(name, network)
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


def require_fit(name: str, network: Wired) -> None:
    """Checks that a network can have kernels of a kind.

    Raises:
        InputError: there are no such kernels; or M does not divide the inputs of a layer.
    """
    require_kernels(name, "kernels")
    sparse = _SPARSE.fullmatch(name)
    of = int(sparse[2]) if sparse else 1
    for module, leaf, layer in _sparse_weights(network):
        assert layer.reads is not None
        inputs = getattr(module, leaf).shape[layer.reads]
        if inputs % of:
            raise InputError(
                f'kernels "{name}": {layer.module} reads {inputs} channels, no multiple of'
                f" {of}; set multiple_of = {of} in [groups]"
            )


def leaves_zeros(name: str) -> bool:
    """Returns whether kernels of a kind leave weights that are zero."""
    return name == "zeros" or _SPARSE.fullmatch(name) is not None


def nonzero_macs(model: nn.Module, layers: Sequence[Layer], macs: int) -> int:
    """Returns the MACs of a network for one image without those of weights that are zero.

    Args:
        model: its kernels are folded.
        layers: all of its layers.
        macs: of the network for one image, with the zeros.
    """
    for layer in layers:
        weight = model.get_parameter(layer.weight)
        macs -= layer.positions * int((weight == 0).sum())
    return macs


def _register_branches(network: Wired, rng: torch.Generator) -> None:
    for module, leaf, layer in _weights(network):
        # Of transposed convolutions inputs come first, and grouped ones mix nothing across groups.
        if layer.geometry is not None and layer.groups == 1 and layer.writes == 0:
            branches = Branches(getattr(module, leaf), rng)
            parametrize.register_parametrization(module, leaf, branches)


def _register_zeros(network: Wired, rng: torch.Generator) -> None:  # noqa: ARG001
    writing = {m.tensor for group in network.groups for m in network.written(group)}
    found = [part for part in _weights(network) if part[2].weight in writing]
    if not found:
        raise InputError('kernels "zeros": modules share every weight that writes channels')
    weights = [getattr(module, leaf).detach().abs().flatten() for module, leaf, _ in found]
    tau = float(np.median(torch.cat(weights).cpu().numpy()))
    for module, leaf, _ in found:
        zeros = HeldZeros(getattr(module, leaf), tau)
        parametrize.register_parametrization(module, leaf, zeros)


def _sparse_weights(network: Wired) -> list[tuple[nn.Module, str, Layer]]:
    """Leaves the first layer, the last linear one and depthwise ones dense, as the authors do."""
    linear = [layer.weight for layer in network.layers if layer.geometry is None]
    dense = {network.layers[0].weight, *linear[-1:]}
    return [
        (module, leaf, layer)
        for module, leaf, layer in _weights(network)
        if layer.weight not in dense and layer.reads is not None
    ]


def _register_sparse(network: Wired, keep: int, of: int) -> None:
    for module, leaf, layer in _sparse_weights(network):
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
