"""Least-squares update of the weights that stay, so that layer outputs change least."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.refit.gram import MAX_INPUTS
from evosearch.refit.moments import coarse_factors, symmetric_product
from evosearch.refit.norms import counting_calls, estimating, recalibrate
from evosearch.refit.patches import (
    Calls,
    channels_first,
    channels_last,
    drawn_patches,
    has_patches,
    rows_of,
)
from evosearch.seeding import Stream, generator
from evosearch.surgery.compaction import Cut
from evosearch.surgery.tracing.walk import Layer

RIDGE = 1e-2
"""Added to the diagonal of the kept inputs' covariance, as a share of its mean: dead channels
make it singular."""
POSITIONS = 16
"""Output positions of each image that a convolution is fitted on, at least."""
ROWS = 8192
"""Output positions of all images together, at least: with few images each gives more."""
OnFit = Callable[[Layer, Tensor, Tensor], None]
"""A layer, what it reads `(rows, inputs)`, and what the base network's puts out there `(rows,
outputs)`; around their means where a bias or BatchNorm behind it absorbs a shift."""


def refit(weight: Tensor, inner: Tensor, cross: Tensor) -> Tensor:
    """Returns the weights on the kept inputs that best give a layer's outputs.

    The minimiser W' of `mean |Y - W'x|^2` plus a ridge that pulls it towards `weight` (and not to
    zero: where inputs are dead, or already give the outputs, nothing changes). The ridge bounds
    the condition of the system by `kept / RIDGE`, which float32 can factor.

    Args:
        weight: trained weights on the kept inputs, `(outputs, kept)`, of the type of the others.
        inner: covariance of the kept inputs x, `(kept, kept)`.
        cross: covariance of kept inputs and outputs Y, `(kept, outputs)`.
    """
    mean = inner.diagonal().mean()
    system = inner.clone()
    system.diagonal().add_(torch.where(mean > 0, RIDGE * mean, torch.ones_like(mean)))
    return weight + solved(system, cross - inner @ weight.T).T


def solved(system: Tensor, right: Tensor) -> Tensor:
    """Returns the solution of a positive definite system, `(rows, columns)`.

    It is found in the type of the system. What float32 cannot factor is solved in float64.

    Args:
        system: `(rows, rows)`.
        right: `(rows, columns)`, of the same type.

    Raises:
        RuntimeError: it is not positive definite.
    """
    exact = system.dtype == torch.float64
    factor, failed = torch.linalg.cholesky_ex(system, check_errors=exact)
    if failed:
        return solved(system.double(), right.double()).to(right.dtype)
    return torch.cholesky_solve(right, factor)


def rescaled(weight: Tensor, inner: Tensor, before: Tensor) -> Tensor:
    """Returns weights whose outputs vary as much as before: each row times a factor.

    The factor is `sqrt(before / after)`, with the variances of an output before the cut and after
    the refit, which takes from it what the kept inputs cannot give (He et al. 2017, arXiv
    1707.06168, as remembered, not checked against the source). A row without any output stays.

    Args:
        weight: refitted, `(outputs, kept)`.
        inner: covariance of the kept inputs, `(kept, kept)`.
        before: variances of the outputs before the cut, `(outputs,)`.
    """
    after = ((weight @ inner) * weight).sum(1)
    factors = torch.where(after > 0, before / after, torch.ones_like(after)).sqrt()
    return factors[:, None] * weight


@final
class Compensation:
    """Refits compact networks to the outputs of their base network, layer after layer.

    He et al. 2017 (arXiv 1707.06168): each layer's inputs come from the compact network so far,
    its targets from the base network, so errors do not pile up. One forward pass over the
    calibration images does it: every layer is refitted as the pass reaches it, and BatchNorm
    statistics are re-estimated on the way.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        images: Inputs,
        seed: int,
        *,
        rescale: bool = False,
    ) -> None:
        """Records the base network's outputs.

        Args:
            model: the base network, in eval mode; not changed.
            layers: all its layers. Those that are called once, and are linear or ungrouped
                two-dimensional convolutions, are refitted; of those with more than `MAX_INPUTS`
                inputs, the bias alone.
            images: calibration images, one batch.
            seed: of the output positions that are fitted on.
            rescale: gives the outputs of refitted layers the variances that they had; a
                BatchNorm behind a layer undoes it.
        """
        self._rescale = rescale
        calls = Counter(layer.module for layer in layers)
        self._layers = [
            layer for layer in layers if calls[layer.module] == 1 and has_patches(layer)
        ]
        self._wide = {
            layer.module
            for layer in self._layers
            if model.get_parameter(layer.weight)[0].numel() > MAX_INPUTS
        }
        self._images = images
        self._seed = seed
        self._drawn: dict[str, Tensor] = {}
        self._targets: dict[str, Tensor] = {}
        with (
            torch.no_grad(),
            counting_calls(model) as norms,
            Calls(model, self._layers, after=self._record),
        ):
            call(model, images)
        self._called_again = {name for name, count in norms.items() if count > 1}

    def apply(
        self,
        network: nn.Module,
        drops: Mapping[str, Cut],
        on_fit: OnFit | None = None,
    ) -> None:
        """Refits a compact network and re-estimates its BatchNorm statistics, in place.

        Args:
            network: the base network without the dropped channels, in eval mode.
            drops: where which channels were dropped.
            on_fit: told what each layer is refitted on, before it is.
        """

        def refit_here(layer: Layer, inputs: Tensor) -> None:
            self._refit(network, layer, drops.get(layer.weight, {}), inputs, on_fit)

        if self._called_again:
            # Their statistics are known only after the last call: they need a pass of their own.
            recalibrate(network, [self._images])
        with (
            torch.no_grad(),
            estimating(network, but=self._called_again),
            Calls(network, self._layers, before=refit_here),
        ):
            call(network, self._images)

    def _record(self, layer: Layer, output: Tensor) -> None:
        rows = rows_of(layer, output)
        images, positions, channels = rows.shape
        count = min(max(POSITIONS, ROWS // images), positions)
        rng = generator(self._seed, Stream.STATISTICS, "compensation", layer.module)
        order = rng.random((images, positions)).argsort(axis=1)[:, :count]
        drawn = torch.from_numpy(order).to(output.device)
        self._drawn[layer.module] = drawn
        chosen = rows.gather(1, drawn[:, :, None].expand(-1, -1, channels))
        self._targets[layer.module] = chosen.flatten(0, 1)

    def _refit(
        self,
        network: nn.Module,
        layer: Layer,
        cut: Cut,
        inputs: Tensor,
        on_fit: OnFit | None,
    ) -> None:
        own = network.get_parameter(layer.weight)
        rows = drawn_patches(layer, inputs, self._drawn[layer.module])
        coarse = rows.dtype == torch.bfloat16
        rows, targets = _exact(rows), _exact(self._targets[layer.module])
        if layer.writes in cut:
            stays = np.setdiff1d(np.arange(targets.shape[1]), cut[layer.writes])
            targets = targets[:, torch.from_numpy(stays).to(targets.device)]
        row_mean, target_mean = rows.mean(0), targets.mean(0)
        if layer.absorbs_shift:
            rows, targets = rows.sub_(row_mean), targets - target_mean
        # Sums of products need float32, whatever the layers themselves compute in.
        with torch.autocast(rows.device.type, enabled=False):
            if on_fit is not None:
                on_fit(layer, channels_first(rows, own.shape[1]), targets)
            weight = channels_last(own)
            if layer.module not in self._wide:
                with coarse_factors(rows.device, allowed=coarse and layer.absorbs_shift):
                    inner = symmetric_product(rows).div_(len(rows))
                    cross = (rows.T @ targets).div_(len(rows))
                weight = refit(weight.to(inner.dtype), inner, cross)
                if self._rescale:
                    weight = rescaled(weight, inner, targets.square().mean(0))
                kernel = (len(own), *own.shape[2:], own.shape[1])
                own.copy_(weight.reshape(kernel).movedim(-1, 1))
            if layer.bias is not None:
                bias = target_mean - channels_last(own) @ row_mean
                network.get_parameter(layer.bias).copy_(bias)


def _exact(values: Tensor) -> Tensor:
    """Returns values as float32, or as what they are where that is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
