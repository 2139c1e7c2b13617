"""Importance criteria: scores that rank channels inside a group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from evosearch.mask import ChannelGroup
from evosearch.surgery.tracing import Layer


def l1(
    model: nn.Module, groups: Sequence[ChannelGroup], layers: Sequence[Layer]
) -> dict[str, NDArray[np.float64]]:
    """Scores each channel by the L1 norm of the filters that write it (Li et al., ICLR 2017).

    A coupled group averages over its writers.

    Returns:
        Group name -> `(channels,)`, higher is kept.
    """
    writers = {layer.weight for layer in layers}
    scores = {}
    for group in groups:
        norms = []
        for member in group.members:
            if member.tensor in writers and member.dim == 0:
                filters = model.get_parameter(member.tensor).detach().flatten(1).double().cpu()
                norms.append(filters.abs().sum(dim=1).numpy()[group.index(member)].sum(axis=1))
        scores[group.name] = np.mean(norms, axis=0)
    return scores
