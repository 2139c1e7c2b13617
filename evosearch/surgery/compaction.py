"""The compact network of a mask, and the masked network that it must equal."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.models.copying import copied
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.surgery.tracing.walk import Layer

Cut = Mapping[int, NDArray[np.int64]]
"""Dimension -> positions that go from one tensor, sorted."""


def dropped_positions(groups: Iterable[ChannelGroup], mask: Mask) -> dict[str, Cut]:
    """Returns where in which tensors a mask drops channels.

    A size that a module keeps as an attribute (`conv.groups`) counts as a tensor of one dimension.
    """
    drops: dict[str, dict[int, list[NDArray[np.int64]]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        dropped = ~mask[group.name]
        if dropped.any():
            for member in group.members:
                drops[member.tensor][member.dim].append(group.index(member)[dropped].flatten())
    return {
        tensor: {dim: np.sort(np.concatenate(positions)) for dim, positions in dims.items()}
        for tensor, dims in drops.items()
    }


def compact(
    model: nn.Module, groups: Iterable[ChannelGroup], mask: Mask, *, share: bool = False
) -> nn.Module:
    """Returns the network without the channels that a mask drops.

    The result has the classes and names of the model, and fitted attributes (`in_channels`,
    `num_features`, ...). The model is not changed.

    Args:
        model: the whole network.
        groups: its channel groups.
        mask: the channels that stay.
        share: lets the result hold the model's own tensors where nothing goes from them. By
            default it shares none.
    """
    drops = dropped_positions(groups, mask)
    named: list[tuple[str, Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    # Copying the structure around the tensors, and then each tensor's kept part once, costs a
    # fraction of copying everything and slicing it afterwards.
    tensors = {id(tensor): tensor for _, tensor in named}
    result = copied(model, keeping=tensors.values())
    cuts: dict[int, Cut] = {}
    for name, tensor in named:
        # A tensor of several names is cut under one of them.
        cuts.setdefault(id(tensor), {})
        if name in drops:
            cuts[id(tensor)] = drops.pop(name)
    kept = {
        key: tensors[key] if share and not cut else _keep(tensors[key], cut)
        for key, cut in cuts.items()
    }
    for attribute, cut in drops.items():
        owner_name, _, leaf = attribute.rpartition(".")
        owner = result.get_submodule(owner_name)
        setattr(owner, leaf, getattr(owner, leaf) - len(cut[0]))
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
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        module.in_channels = module.weight.shape[0]
        module.out_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        module.in_channels = module.weight.shape[1] * module.groups
        module.out_channels = module.weight.shape[0]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        tensor = module.running_mean if module.running_mean is not None else module.weight
        module.num_features = len(tensor)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)


@contextmanager
def masked(
    model: nn.Module, groups: Sequence[ChannelGroup], layers: Iterable[Layer], mask: Mask
) -> Iterator[nn.Module]:
    """Gives the model with dropped channels zeroed where their consumers read them.

    The consumers' weights are changed in place and restored on leaving.
    """
    drops = dropped_positions(groups, mask)
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    saved: list[tuple[Tensor, int, Tensor, Tensor]] = []
    with torch.no_grad():
        for name, dim in {(layer.weight, layer.reads) for layer in layers}:
            positions = None if dim is None else drops.get(name, {}).get(dim)
            if dim is not None and positions is not None:
                weight = parameters[name]
                index = torch.from_numpy(positions).to(weight.device)
                saved.append((weight, dim, index, weight.detach().index_select(dim, index)))
                weight.index_fill_(dim, index, 0)
    try:
        yield model
    finally:
        with torch.no_grad():
            for weight, dim, index, values in saved:
                weight.index_copy_(dim, index, values)
