"""The compact network of a mask, cut from a copy or in place; the masked one that it equals."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.models.copying import copied
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.surgery.cut_attention import fit_attention
from evosearch.surgery.tracing.walk import Layer

Cut = Mapping[int, NDArray[np.int64]]
"""Dimension -> positions that go from one tensor, sorted."""


def dropped_positions(groups: Iterable[ChannelGroup], mask: Mask) -> dict[str, Cut]:
    """Returns where in which tensors a mask drops channels.

    A size that a module keeps as an attribute (`conv.groups`), or in one (`conv.splits.1`), counts
    as a tensor of one dimension.
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


@final
@dataclass(frozen=True, kw_only=True)
class Replacement:
    """A tensor of a network that a cut put a smaller one in place of.

    Attributes:
        old: the whole one, as it was.
        new: the one that the network has.
        cut: what went.
    """

    old: Tensor
    new: Tensor
    cut: Cut

    def follow(self, tensor: Tensor) -> Tensor:
        """Returns what stays of a tensor that has an element for each of the old one's."""
        return _kept(tensor, self.cut)


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
    # Copying the structure around the tensors, and then each tensor's kept part once, costs a
    # fraction of copying everything and slicing it afterwards.
    result = copied(model, keeping=[tensor for _, tensor in _named_tensors(model)])
    _replace(result, dropped_positions(groups, mask), all_tensors=not share)
    return result


def cut(model: nn.Module, groups: Iterable[ChannelGroup], mask: Mask) -> tuple[Replacement, ...]:
    """Takes the channels that a mask drops out of a network, in place.

    Modules stay the same objects, with their hooks; tensors from which something goes are
    replaced, gradients are not kept.

    Args:
        model: changed.
        groups: its channel groups.
        mask: the channels that stay.

    Returns:
        The tensors that were replaced, each once.
    """
    return _replace(model, dropped_positions(groups, mask), all_tensors=False)


def _named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Returns parameters and buffers; a tensor of several names comes under each."""
    return [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]


def _replace(
    model: nn.Module, drops: Mapping[str, Cut], *, all_tensors: bool
) -> tuple[Replacement, ...]:
    """Gives a model new tensors without what is dropped, in place; all new ones, if so asked."""
    named = _named_tensors(model)
    for attribute in drops.keys() - {name for name, _ in named}:
        _lower(model, attribute, len(drops[attribute][0]))
    cuts: dict[int, Cut] = {}
    for name, tensor in named:
        # A tensor of several names is cut under one of them.
        if name in drops or (all_tensors and id(tensor) not in cuts):
            cuts[id(tensor)] = drops.get(name, {})
    made: dict[int, Replacement] = {}
    changed: list[nn.Module] = []
    for name, tensor in named:
        if id(tensor) not in cuts:
            continue
        if id(tensor) not in made:
            gone = cuts[id(tensor)]
            new = _kept(tensor.detach(), gone)
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = Replacement(old=tensor, new=new, cut=gone)
        owner, leaf = _place(model, name)
        setattr(owner, leaf, made[id(tensor)].new)
        if cuts[id(tensor)]:
            changed.append(owner)
    for module in changed:
        fit_attributes(module)
    return tuple(made.values())


def _lower(model: nn.Module, attribute: str, by: int) -> None:
    """Lowers an integer that a module keeps, or one of several (`conv.splits.1`), in place."""
    name, _, number = attribute.rpartition(".")
    if not number.isdigit():
        owner, leaf = _place(model, attribute)
        setattr(owner, leaf, getattr(owner, leaf) - by)
        return
    owner, leaf = _place(model, name)
    kept = getattr(owner, leaf)
    lowered = [size - by if i == int(number) else size for i, size in enumerate(kept)]
    setattr(owner, leaf, type(kept)(lowered))


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Returns the module that has what is named, and its name there."""
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf


def _kept(tensor: Tensor, cut: Cut) -> Tensor:
    """Returns a copy of a tensor without some positions."""
    if not cut:
        return tensor.clone()
    for dim, positions in kept_positions(tensor, cut).items():
        tensor = tensor.index_select(dim, positions)
    return tensor


def kept_positions(tensor: Tensor, cut: Cut) -> dict[int, Tensor]:
    """Returns the positions that stay of a tensor along each dimension that is cut, sorted."""
    kept = {}
    for dim, positions in cut.items():
        stays = torch.ones(tensor.shape[dim], dtype=torch.bool)
        stays[torch.from_numpy(positions)] = False
        kept[dim] = stays.nonzero().flatten().to(tensor.device)
    return kept


def fit_attributes(module: nn.Module) -> None:
    """Fits a module to its tensors: the sizes that it keeps beside them, and its attention."""
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
    else:
        fit_attention(module)


def dropped_readers(
    groups: Iterable[ChannelGroup], layers: Iterable[Layer], mask: Mask
) -> Iterator[tuple[str, int, Tensor]]:
    """Yields where weights read channels that a mask drops: name, dimension, positions."""
    drops = dropped_positions(groups, mask)
    for name, dim in {(layer.weight, layer.reads) for layer in layers}:
        positions = None if dim is None else drops.get(name, {}).get(dim)
        if dim is not None and positions is not None:
            yield name, dim, torch.from_numpy(positions)


@contextmanager
def masked(
    model: nn.Module, groups: Sequence[ChannelGroup], layers: Iterable[Layer], mask: Mask
) -> Iterator[nn.Module]:
    """Gives the model with dropped channels zeroed where their consumers read them.

    The consumers' weights are changed in place and restored on leaving.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    saved: list[tuple[Tensor, int, Tensor, Tensor]] = []
    with torch.no_grad():
        for name, dim, positions in dropped_readers(groups, layers, mask):
            weight = parameters[name]
            index = positions.to(weight.device)
            saved.append((weight, dim, index, weight.detach().index_select(dim, index)))
            weight.index_fill_(dim, index, 0)
    try:
        yield model
    finally:
        with torch.no_grad():
            for weight, dim, index, values in saved:
                weight.index_copy_(dim, index, values)
