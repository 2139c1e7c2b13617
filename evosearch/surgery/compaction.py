"""Building the smaller network from a mask, and the masked network that it must equal."""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.mask import ChannelGroup, Mask
from evosearch.surgery.tracing import Layer

Cut = Mapping[int, NDArray[np.int64]]
"""Dimension -> positions that go from one tensor, sorted."""


def dropped_positions(groups: Iterable[ChannelGroup], mask: Mask) -> dict[str, Cut]:
    """Returns where in which tensors a mask drops channels."""
    drops: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        if mask[group.name].all():
            continue
        for member in group.members:
            positions = group.index(member)[~mask[group.name]]
            drops[member.tensor][member.dim].extend(positions.flatten().tolist())
    return {
        tensor: {dim: np.array(sorted(positions)) for dim, positions in dims.items()}
        for tensor, dims in drops.items()
    }


def compact(model: nn.Module, groups: Iterable[ChannelGroup], mask: Mask) -> nn.Module:
    """Returns the network without the channels that a mask drops.

    The result has the classes and names of the model, its own tensors, and fitted attributes
    (`in_channels`, `num_features`, ...). The model is not changed, nor shared with.
    """
    drops = dropped_positions(groups, mask)
    named: list[tuple[str, Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    # Copying the structure around the tensors, and then each tensor's kept part once, costs a
    # fraction of copying everything and slicing it afterwards.
    shared = {id(tensor): tensor for _, tensor in named}
    result = copy.deepcopy(model, dict(shared))
    cuts: dict[int, Cut] = {}
    for name, tensor in named:
        cuts.setdefault(id(tensor), {})
        if name in drops:
            cuts[id(tensor)] = drops[name]
    kept = {key: _keep(shared[key], cut) for key, cut in cuts.items()}
    for name, tensor in named:
        owner_name, _, leaf = name.rpartition(".")
        owner = result.get_submodule(owner_name)
        setattr(owner, leaf, kept[id(tensor)])
        if cuts[id(tensor)]:
            fit_attributes(owner)
    return result


def _keep(tensor: Tensor, cut: Cut) -> Tensor:
    values = tensor.detach()
    for dim, positions in cut.items():
        stays = torch.ones(values.shape[dim], dtype=torch.bool)
        stays[torch.from_numpy(positions)] = False
        values = values.index_select(dim, stays.nonzero().flatten().to(values.device))
    if not cut:
        values = values.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(values, requires_grad=tensor.requires_grad)
    return values


def fit_attributes(module: nn.Module) -> None:
    """Sets the sizes that a module keeps beside its tensors to those of its tensors."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        written, read = module.weight.shape[:2]
        if module.groups > 1:  # depthwise: as many groups as channels come in
            multiplier = module.out_channels // module.groups
            module.groups = written // multiplier
        module.out_channels, module.in_channels = written, read * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        tensor = module.running_mean if module.running_mean is not None else module.weight
        module.num_features = len(tensor)


@contextmanager
def masked(
    model: nn.Module, groups: Sequence[ChannelGroup], layers: Iterable[Layer], mask: Mask
) -> Iterator[nn.Module]:
    """Gives the model with dropped channels zeroed where their consumers read them.

    The consumers' weights are changed in place and restored on leaving.
    """
    drops = dropped_positions(groups, mask)
    state = dict(model.named_parameters(remove_duplicate=False))
    saved = {}
    with torch.no_grad():
        for weight in {layer.weight for layer in layers if layer.mixes}:
            positions = drops.get(weight, {}).get(1)
            if positions is not None:
                saved[weight] = state[weight].detach().clone()
                state[weight][:, torch.from_numpy(positions)] = 0
    try:
        yield model
    finally:
        with torch.no_grad():
            for weight, values in saved.items():
                state[weight].copy_(values)
