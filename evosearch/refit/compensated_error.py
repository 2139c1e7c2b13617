"""Compensated error of a mask, from the base network's statistics alone.

The third rung of the fitness ladder: no forward pass, one factorisation for each cut layer.
"""

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.refit.compensation import refit
from evosearch.refit.gram import Consumer
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.surgery.compaction import dropped_positions


def compensated_error(weight: Tensor, covariance: Tensor, kept: Tensor) -> float:
    """Returns a layer's least output error with some inputs kept, as a share of its energy.

    `tr(W_P (S_PP - S_PK inv(S_KK) S_KP) W_P') / tr(W S W')` for the dropped inputs P, but for the
    ridge (He et al. 2017, arXiv 1707.06168, step two; Xie et al. 2021, arXiv 2108.13728).

    Args:
        weight: float64 `(outputs, inputs)`.
        covariance: S, float64 `(inputs, inputs)`; or its diagonal alone, `(inputs,)`: then
            inputs count as independent, and nothing can be compensated.
        kept: indices of the inputs that stay, `(kept,)`.
    """
    change = -weight.clone()
    if covariance.ndim == 1:
        change[:, kept] = 0
        energies = weight.square() * covariance
        return float((change.square() * covariance).sum() / energies.sum())
    cross = covariance[kept] @ weight.T
    change[:, kept] += refit(weight[:, kept], covariance[kept][:, kept], cross)
    energy = ((weight @ covariance) * weight).sum()
    return float(((change @ covariance) * change).sum() / energy)


@final
class CompensatedErrors:
    """The compensated errors of masks: the sum over layers whose inputs a mask cuts."""

    def __init__(
        self, model: nn.Module, groups: Sequence[ChannelGroup], consumers: Iterable[Consumer]
    ) -> None:
        """Takes the weights and statistics of the layers that read prunable channels."""
        self._groups = groups
        self._readers = []
        for consumer in consumers:
            layer = consumer.layer
            if layer.reads is None:
                continue
            weight = model.get_parameter(layer.weight).detach().movedim(layer.reads, 1)
            flat = weight.flatten(1).double().cpu()
            energy = (flat.square() * _variances(consumer.covariance)).sum()
            if energy > 0:  # else the layer's output is constant: nothing can be lost
                channels = weight.shape[1]
                axis = layer.weight, layer.reads
                self._readers.append((axis, channels, flat, consumer.covariance))

    def __call__(self, mask: Mask) -> float:
        """Returns the error of a mask, in shares of the layers' output energies."""
        drops = dropped_positions(self._groups, mask)
        total = 0.0
        for (tensor, dim), channels, weight, covariance in self._readers:
            dropped = drops.get(tensor, {}).get(dim)
            if dropped is not None:
                stays = np.setdiff1d(np.arange(channels), dropped)
                kernel = np.arange(weight.shape[1] // channels)
                kept = (stays[:, None] * len(kernel) + kernel).ravel()
                total += compensated_error(weight, covariance, torch.from_numpy(kept))
        return total


def _variances(covariance: Tensor) -> Tensor:
    return covariance if covariance.ndim == 1 else covariance.diagonal()
