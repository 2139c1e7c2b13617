"""Criteria that read weights only: norms, counts and distances of filters."""

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.criteria.base import DataFree, DataFreeByGroup, Normaliser
from evosearch.criteria.scored_network import Array, ScoredNetwork, array
from evosearch.refit.norms import BatchNorm
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import ChannelGroup


class L1(DataFreeByGroup):
    """L1 norm of the filters that write a channel.

    `s_j = sum |W_j|`.
    """

    source = "Li et al. 2017, arXiv 1608.08710"
    coupled = "mean over writers"
    normaliser = Normaliser.MEAN

    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """See `DataFreeByGroup.score_group`."""
        return _mean([rows.abs().sum(1) for rows in network.written(group)])


class L2(DataFreeByGroup):
    """L2 norm of the filters that write a channel.

    `s_j = sqrt(mean over writers of |W_j|^2)`.
    """

    source = "He et al. 2018 (soft filter pruning), arXiv 1808.06866"
    coupled = "root mean square over writers"
    normaliser = Normaliser.MEAN

    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """See `DataFreeByGroup.score_group`."""
        squares = torch.stack([rows.square().sum(1) for rows in network.written(group)])
        return array(squares.mean(0).sqrt())


class Random(DataFree):
    """A uniform draw: the control of every ranking.

    With the widths of another plan (`space.top_channels(widths, scores)`) it is the control that
    matters: what the choice of channels adds to the choice of widths (Frankle et al. 2020,
    arXiv 2009.08576, found that for some criteria it adds nothing).
    """

    source = "control"
    coupled = "one draw for each channel"
    normaliser = Normaliser.NONE

    def score(
        self, network: ScoredNetwork, evidence: None, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        return {group.name: rng.random(group.size) for group in network.groups}


class RelativeL1(DataFreeByGroup):
    """Mean absolute weight of the filters that write a channel.

    `s_j = sum |W_j| / numel(W_j)`: L1 norms made comparable between layers, for one threshold
    over the whole network. The division is as we recall the paper, whose body could not be read.
    """

    source = "Salama et al. 2019 (pruning at a glance), arXiv 1912.00200"
    coupled = "norms and counts summed over writers"
    normaliser = Normaliser.NONE

    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """See `DataFreeByGroup.score_group`."""
        return array(torch.cat(network.written(group), dim=1).abs().mean(1))


class ZeroKeep(DataFree):
    """Share of near-zero weights in the filters that write a channel: zero-rich filters stay.

    `s_j = #{w in W_j: |w| < tau} / numel(W_j)`. It serves hardware that skips zeros, not
    accuracy. The paper's tau could not be read; ours is the median of all weights that write
    scored channels.
    """

    source = "Woo et al. 2021, doi 10.3390/electronics10111238"
    coupled = "counts summed over writers"
    normaliser = Normaliser.NONE

    def score(
        self, network: ScoredNetwork, evidence: None, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        filters = {g.name: torch.cat(network.written(g), dim=1).abs() for g in network.groups}
        tau = np.median(np.concatenate([array(rows).ravel() for rows in filters.values()]))
        return {group: (array(rows) < tau).mean(axis=1) for group, rows in filters.items()}


class InOutNorm(DataFreeByGroup):
    """L2 norm of what writes a channel plus L2 norm of what reads it.

    The two group-lasso terms of DropNeuron for one unit, over a coupled group:
    `s_j = sqrt(sum_p |W_p[j]|^2) + sqrt(sum_c |W_c[:, j]|^2)`.
    """

    source = "Pan et al. 2016 (DropNeuron), arXiv 1606.07326"
    coupled = "squares summed over writers, and over readers"
    normaliser = Normaliser.MEAN

    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """See `DataFreeByGroup.score_group`."""
        incoming = torch.cat(network.written(group), dim=1)
        outgoing = torch.cat(network.read(group), dim=1)
        return array(incoming.norm(dim=1) + outgoing.norm(dim=1))


class FPGM(DataFreeByGroup):
    """Sum of distances to the group's other filters: near the geometric median is redundant.

    `s_j = sum_k |W_j - W_k|_2`.
    """

    source = "He et al. 2019, arXiv 1811.00250"
    coupled = "distances between the concatenated filters of all writers"
    normaliser = Normaliser.MEAN

    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """See `DataFreeByGroup.score_group`."""
        filters = torch.cat(network.written(group), dim=1)
        return array(torch.cdist(filters, filters).sum(1))


class BNScale(DataFreeByGroup):
    """Absolute scale of the BatchNorms over a channel.

    `s_j = |gamma_j|`, compared over the whole network. It says most after training with the
    sparsity penalty that the paper adds. A group without BatchNorm scores one: nothing scales it.
    """

    source = "Liu et al. 2017 (network slimming), arXiv 1708.06519"
    coupled = "mean over BatchNorms"
    normaliser = Normaliser.NONE

    def score_group(self, network: ScoredNetwork, group: ChannelGroup) -> Array:
        """See `DataFreeByGroup.score_group`."""
        scales = [
            _scale(network.model.get_submodule(name)).cpu()[torch.from_numpy(index)].mean(1)
            for name, index in network.norms[group.name].items()
        ]
        return _mean(scales) if scales else np.ones(group.size)


def _scale(norm: nn.Module) -> Tensor:
    """Returns a BatchNorm's absolute scale, `(channels,)`; ones where it has none."""
    assert isinstance(norm, BatchNorm)
    if norm.weight is None:
        return torch.ones(norm.num_features, dtype=torch.float64)
    return norm.weight.detach().double().abs()


def _mean(parts: list[Tensor]) -> Array:
    return array(torch.stack(parts).mean(0))
