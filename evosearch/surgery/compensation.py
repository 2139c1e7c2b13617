"""Least-squares update of the weights that stay, so that layer outputs change least."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.surgery.compaction import Cut
from evosearch.surgery.gram import Consumer

RIDGE = 1e-4
"""Added to the diagonal of the kept inputs' covariance, as a share of its mean: dead channels
make it singular."""


def compensate(
    network: nn.Module,
    base: nn.Module,
    drops: Mapping[str, Cut],
    consumers: Mapping[str, Consumer],
) -> None:
    """Refits the consumers of a compacted network to the base network's outputs, in place.

    With K the kept inputs, `W'_K = W S_:K inv(S_KK)` and `b' = b + W m - W'_K m_K` (He et al.
    2017, arXiv 1707.06168, step two; Xie et al. 2021, arXiv 2108.13728). Layers without a bias
    leave the shift to the BatchNorm behind them, which recalibration re-estimates.

    Args:
        network: the base network without the dropped channels.
        base: the base network.
        drops: where which channels were dropped.
        consumers: what each layer was seen to read in the base network.
    """
    with torch.no_grad():
        for consumer in consumers.values():
            weight_name = consumer.layer.weight
            cut = drops.get(weight_name, {})
            if 1 not in cut or consumer.covariance.ndim == 1:
                continue
            weight = base.get_parameter(weight_name).detach()
            rows = _kept(cut[0], weight.shape[0]) if 0 in cut else torch.arange(len(weight))
            kept = _kept(cut[1], weight.shape[1])
            flat = weight[rows].flatten(1).double().cpu()
            inputs = _inputs(kept, flat.shape[1] // weight.shape[1])
            refitted = refit(flat, consumer.covariance, inputs)
            target = network.get_parameter(weight_name)
            target.copy_(refitted.reshape(target.shape))
            if consumer.layer.bias is not None:
                shift = flat @ consumer.mean - refitted @ consumer.mean[inputs]
                network.get_parameter(consumer.layer.bias).add_(shift.to(target))


def refit(weight: Tensor, covariance: Tensor, kept: Tensor) -> Tensor:
    """Returns the weights on the kept inputs that best reproduce a layer's output.

    Args:
        weight: float64 `(outputs, inputs)`.
        covariance: float64 `(inputs, inputs)`.
        kept: indices of the inputs that stay, `(kept,)`.

    Returns:
        `(outputs, kept)`: the minimiser of the output error plus the ridge.
    """
    inner = covariance[kept][:, kept]
    mean = float(inner.diagonal().mean())
    inner = inner + (RIDGE * mean if mean > 0 else 1.0) * torch.eye(len(kept), dtype=inner.dtype)
    # The ridge pulls towards the trained weights, not to zero: with nothing dropped, nothing
    # changes, and where inputs are dead their weights stay as they are.
    residual = covariance[kept] @ weight.T - covariance[kept][:, kept] @ weight[:, kept].T
    correction = torch.cholesky_solve(residual, torch.linalg.cholesky(inner))
    return weight[:, kept] + correction.T


def compensated_error(weight: Tensor, covariance: Tensor, kept: Tensor) -> float:
    """Returns the least output error with the given inputs kept, as a share of the energy.

    `tr(W_P (S_PP - S_PK inv(S_KK) S_KP) W_P') / tr(W S W')`, but for the ridge. Arguments as for
    `refit`.
    """
    change = -weight.clone()
    change[:, kept] += refit(weight, covariance, kept)
    energy = ((weight @ covariance) * weight).sum()
    return float(((change @ covariance) * change).sum() / energy)


def _kept(dropped: NDArray[np.int64], size: int) -> Tensor:
    stays = torch.ones(size, dtype=torch.bool)
    stays[torch.from_numpy(dropped)] = False
    return stays.nonzero().flatten()


def _inputs(channels: Tensor, kernel: int) -> Tensor:
    """Returns the patch entries of input channels, `(channels * kernel,)`."""
    return (channels[:, None] * kernel + torch.arange(kernel)).flatten()
