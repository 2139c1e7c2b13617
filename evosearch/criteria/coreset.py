"""The coreset criterion, and the sampling and reweighting that go with it."""

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.criteria.base import DataFreeByGroup, Normaliser
from evosearch.criteria.scored_network import Array, ScoredNetwork, array
from evosearch.refit.norms import BatchNorm
from evosearch.space.mask import Bits, ChannelGroup, Mask
from evosearch.space.space import Widths

DEAD = 1e-9
"""Share of a group's largest importance below which a channel has none."""


class Coreset(DataFreeByGroup):
    """Norm of what writes a channel times the largest weight that reads it.

    `q_j ~ |p_j| max_k |W_k[:, j]|` with `p_j` all filters and biases that write the channel,
    BatchNorm folded, and `W_k[:, j]` what output k of a reader takes from it: for ReLU the
    sampling probability of the paper, whose bound holds for linear layers. For
    convolutions the kernel's norm stands for the weight; that step is ours.
    """

    source = "Mussay et al. 2020, arXiv 1907.04018; for channels ours"
    coupled = "squares summed over writers, maximum over the outputs of all readers"
    normaliser = Normaliser.MEAN

    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """See `DataFreeByGroup.score_group`."""
        writing = torch.cat(list(_folded(network, group)), dim=1).norm(dim=1)
        largest = []
        for place in network.readers[group.name]:
            weight = network.weight(place).movedim(place.dim, 0)
            norms = weight.reshape(*weight.shape[:2], -1).norm(dim=2)  # (inputs, outputs)
            largest.append(norms[torch.from_numpy(place.index)].flatten(1).amax(1))
        return array(writing * torch.stack(largest).amax(0))


def _folded(network: ScoredNetwork, group: ChannelGroup) -> Iterator[Tensor]:
    """Yields the filters and biases of each writer, `(channels, elements)`, BatchNorm folded.

    A BatchNorm belongs to the writer before it, where that goes into BatchNorm alone.
    """
    for place in network.writers[group.name]:
        layer = place.layers[0]
        weight = network.weight(place).movedim(place.dim, 0)
        size = len(weight)
        bias = torch.zeros(size, dtype=weight.dtype, device=weight.device)
        if layer.bias is not None and network.model.get_parameter(layer.bias).numel() == size:
            bias = network.model.get_parameter(layer.bias).detach().double()
        norm = None if layer.norm is None else network.model.get_submodule(layer.norm)
        if isinstance(norm, BatchNorm) and norm.num_features == size:
            scale, shift = scale_and_shift(norm)
            bias = bias * scale.to(bias) + shift.to(bias)
            weight = weight * scale.to(weight).reshape(-1, *[1] * (weight.ndim - 1))
        rows = torch.cat([weight.flatten(1), bias[:, None]], dim=1)
        yield rows[torch.from_numpy(place.index)].flatten(1)


def scale_and_shift(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Returns what a BatchNorm multiplies by and adds in eval mode, float64 `(channels,)` each.

    Without running statistics its input counts as normalised already.
    """

    def values(tensor: Tensor | None, without: float) -> Tensor:
        if tensor is None:
            return torch.full((norm.num_features,), without, dtype=torch.float64)
        return tensor.detach().double().cpu()

    variance = values(norm.running_var, without=1.0) + norm.eps
    scale = values(norm.weight, without=1.0) / variance.sqrt()
    return scale, values(norm.bias, without=0.0) - scale * values(norm.running_mean, without=0.0)


def draw_coreset(
    importance: Array, width: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Array]:
    """Draws channels with replacement, in proportion to importance, until enough are held.

    The sampling of Mussay et al. 2020 (arXiv 1907.04018), which reweights what it keeps. Draws
    come one after the other as the events of Poisson processes, one for each channel, whose first
    events decide what is held, so that rare channels take no longer than others.

    Args:
        importance: `(channels,)`, not negative.
        width: channels to hold, at most as many as have importance above zero.
        rng: of the draws.

    Returns:
        Which channels are kept, `(channels,)`, and what the weights that read them are
        multiplied by, `(channels,)`: `count_j / (draws q_j)`, zero where not kept.

    Raises:
        ValueError: fewer channels than `width` have importance above zero.
    """
    if (importance > 0).sum() < width:
        raise ValueError(f"expected {width} channels of importance above zero")
    chances = importance / importance.sum()
    firsts = np.full(len(chances), np.inf)
    firsts[chances > 0] = rng.exponential(1 / chances[chances > 0])
    end = np.sort(firsts)[width - 1]
    kept = firsts <= end
    counts = np.zeros(len(chances))
    counts[kept] = 1 + rng.poisson(chances[kept] * (end - firsts[kept]))
    factors = np.zeros(len(chances))
    factors[kept] = counts[kept] / (counts.sum() * chances[kept])
    return kept, factors


def coreset_of(
    network: ScoredNetwork, widths: Widths, rng: np.random.Generator
) -> tuple[Mask, nn.Module]:
    """Returns channels of given widths, drawn by the criterion `coreset`, and what they weigh.

    Channels of no importance are never drawn: where all others fit, they stay as they are.

    Args:
        network: not changed.
        widths: channels to keep, `(groups,)`.
        rng: of the draws.

    Returns:
        The mask, and a copy of the model whose readers take what is kept multiplied by its
        factor.
    """
    bits: dict[str, Bits] = {}
    factors: dict[str, Array] = {}
    for group, width in zip(network.groups, widths, strict=True):
        importance = Coreset().score_group(network, group)
        importance[importance < DEAD * importance.max()] = 0
        if (importance > 0).sum() > width:
            bits[group.name], factors[group.name] = draw_coreset(importance, int(width), rng)
        else:
            order = np.argsort(-importance, kind="stable")
            bits[group.name] = np.isin(np.arange(group.size), order[:width])
    return Mask(bits), reweighted(network, factors)


def reweighted(network: ScoredNetwork, factors: Mapping[str, Array]) -> nn.Module:
    """Returns a copy of the model whose readers take channels multiplied by factors.

    Args:
        network: not changed.
        factors: group name -> `(channels,)`, as from `draw_coreset`.
    """
    model = copy.deepcopy(network.model)
    with torch.no_grad():
        for group, values in factors.items():
            for place in network.readers[group]:
                weight = model.get_parameter(place.weight).movedim(place.dim, 0)
                by_position = np.repeat(values, place.index.shape[1])
                index = torch.from_numpy(place.index.ravel())
                scale = torch.from_numpy(by_position).to(weight)
                weight[index] *= scale.reshape(-1, *[1] * (weight.ndim - 1))
    return model
