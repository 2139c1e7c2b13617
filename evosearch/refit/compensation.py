"""Least-squares update of the weights that stay, so that layer outputs change least."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.refit.gram import has_patches, pad
from evosearch.refit.norms import estimating
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


def refit(weight: Tensor, inner: Tensor, cross: Tensor) -> Tensor:
    """Returns the weights on the kept inputs that best give a layer's outputs.

    The minimiser W' of `mean |Y - W'x|^2` plus a ridge that pulls it towards `weight` (and not to
    zero: where inputs are dead, or already give the outputs, nothing changes).

    Args:
        weight: trained weights on the kept inputs, float64 `(outputs, kept)`.
        inner: covariance of the kept inputs x, float64 `(kept, kept)`.
        cross: covariance of kept inputs and outputs Y, float64 `(kept, outputs)`.
    """
    mean = float(inner.diagonal().mean())
    ridge = (RIDGE * mean if mean > 0 else 1.0) * torch.eye(len(inner), dtype=inner.dtype)
    residual = cross - inner @ weight.T
    return weight + torch.cholesky_solve(residual, torch.linalg.cholesky(inner + ridge)).T


@final
class Compensation:
    """Refits compact networks to the outputs of their base network, layer after layer.

    He et al. 2017 (arXiv 1707.06168): each layer's inputs come from the compact network so far,
    its targets from the base network, so errors do not pile up. One forward pass over the
    calibration images does it: every layer is refitted as the pass reaches it, and BatchNorm
    statistics are re-estimated on the way.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], images: Tensor, seed: int
    ) -> None:
        """Records the base network's outputs.

        Args:
            model: the base network, in eval mode; not changed.
            layers: all its layers. Those that are called once, and are linear or ungrouped
                two-dimensional convolutions, are refitted.
            images: calibration images, one batch, `(images, channels, height, width)`.
            seed: of the output positions that are fitted on.
        """
        calls = Counter(layer.module for layer in layers)
        self._layers = [
            layer
            for layer in layers
            if calls[layer.module] == 1 and has_patches(model.get_submodule(layer.module))
        ]
        self._images = images
        self._seed = seed
        self._drawn: dict[str, Tensor] = {}
        self._targets: dict[str, Tensor] = {}
        hooks = [
            model.get_submodule(layer.module).register_forward_hook(partial(self._record, layer))
            for layer in self._layers
        ]
        with torch.no_grad():
            model(images)
        for hook in hooks:
            hook.remove()

    def apply(self, network: nn.Module, drops: Mapping[str, Cut]) -> None:
        """Refits a compact network and re-estimates its BatchNorm statistics, in place.

        Args:
            network: the base network without the dropped channels, in eval mode.
            drops: where which channels were dropped.
        """
        hooks = [
            network.get_submodule(layer.module).register_forward_pre_hook(
                partial(self._refit, layer, drops.get(layer.weight, {}))
            )
            for layer in self._layers
        ]
        try:
            with estimating(network), torch.no_grad():
                network(self._images)
        finally:
            for hook in hooks:
                hook.remove()

    def _record(
        self, layer: Layer, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        if output.ndim != 4:
            self._targets[layer.module] = output.flatten(0, -2).clone()
            return
        images, channels, height, width = output.shape
        count = min(max(POSITIONS, ROWS // images), height * width)
        rng = generator(self._seed, Stream.STATISTICS, "compensation", layer.module)
        order = rng.random((images, height * width)).argsort(axis=1)[:, :count]
        drawn = torch.from_numpy(order).to(output.device)
        chosen = output.flatten(2).gather(2, drawn[:, None].expand(-1, channels, -1))
        self._drawn[layer.module] = drawn
        self._targets[layer.module] = chosen.transpose(1, 2).flatten(0, 1)

    def _refit(
        self, layer: Layer, cut: Cut, module: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...]
    ) -> None:
        rows = _exact(_drawn_patches(module, inputs[0], self._drawn.get(layer.module)))
        targets = _exact(self._targets[layer.module])
        if layer.writes in cut:
            stays = np.setdiff1d(np.arange(targets.shape[1]), cut[layer.writes])
            targets = targets[:, torch.from_numpy(stays).to(targets.device)]
        row_mean, target_mean = rows.mean(0), targets.mean(0)
        if layer.absorbs_shift:
            rows, targets = rows - row_mean, targets - target_mean
        # Sums of products need float32, whatever the layers themselves compute in.
        with torch.autocast(rows.device.type, enabled=False):
            inner = (rows.T @ rows).double().cpu() / len(rows)
            cross = (rows.T @ targets).double().cpu() / len(rows)
            weight = refit(module.weight.flatten(1).double().cpu(), inner, cross)
            module.weight.copy_(weight.reshape(module.weight.shape))
            if module.bias is not None:
                module.bias.copy_(target_mean - module.weight.flatten(1) @ row_mean)


def _exact(values: Tensor) -> Tensor:
    """Returns values as float32, or as what they are where that is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _drawn_patches(module: nn.Linear | nn.Conv2d, inputs: Tensor, drawn: Tensor | None) -> Tensor:
    """Returns what a layer reads for the drawn output positions, `(rows, inputs)`.

    Args:
        module: the layer.
        inputs: of the layer.
        drawn: flat indices of output positions, `(images, positions)`; None for all.
    """
    if isinstance(module, nn.Linear) or drawn is None:
        return inputs.flatten(0, -2)
    padded = pad(module, inputs)
    (kernel_h, kernel_w), (stride_h, stride_w) = module.kernel_size, module.stride
    dilation_h, dilation_w = module.dilation
    width = (padded.shape[3] - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    place = inputs.device
    top, left = drawn // width * stride_h, drawn % width * stride_w
    rows = top[:, :, None, None] + (torch.arange(kernel_h, device=place) * dilation_h)[:, None]
    columns = left[:, :, None, None] + torch.arange(kernel_w, device=place) * dilation_w
    image = torch.arange(len(inputs), device=place)[:, None, None, None]
    found = padded[image, :, rows, columns]  # (images, positions, kernel, kernel, channels)
    return found.movedim(-1, 2).flatten(0, 1).flatten(1)
