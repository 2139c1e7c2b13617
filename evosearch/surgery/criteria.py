"""Importance criteria: scores that rank channels inside a group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from evosearch.mask import ChannelGroup
from evosearch.surgery.walk import Layer


def l1(
    model: nn.Module, groups: Sequence[ChannelGroup], layers: Sequence[Layer]
) -> dict[str, NDArray[np.float64]]:
    """Scores each channel by the L1 norm of the filters that write it (Li et al., ICLR 2017).

    A coupled group averages over its writers.

    Returns:
        Group name -> `(channels,)`, higher is kept.
    """
    written = {(layer.weight, layer.writes) for layer in layers}
    scores = {}
    for group in groups:
        norms = []
        for member in group.members:
            if (member.tensor, member.dim) in written:
                filters = model.get_parameter(member.tensor).detach().movedim(member.dim, 0)
                sums = filters.flatten(1).double().abs().sum(dim=1).cpu().numpy()
                norms.append(sums[group.index(member)].sum(axis=1))
        scores[group.name] = np.mean(norms, axis=0)
    return scores
