"""Second-order statistics of layer inputs, and the Gram matrices of the two-step fitness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from evosearch.models.modes import evaluating
from evosearch.seeding import Stream, generator
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.tracing.walk import Layer

MAX_PATCHES = 100_000
"""Patches per layer that enter its statistics; beyond that, positions are drawn."""
MAX_INPUTS = 5_000
"""Layers that read more inputs than this keep variances only, and are not compensated."""
LARGEST_PATCHES = 2**25
"""Elements of the patches that are looked at together, at most: 128 MiB. The patches of a whole
batch take a kernel's size times the memory of its images."""


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A layer that reads prunable channels, and what it was seen to read.

    Attributes:
        layer: the layer.
        mean: of its input patches, float64 `(inputs,)`; inputs = in_channels x kernel elements.
            Zero where no bias or BatchNorm behind the layer absorbs a constant shift.
        covariance: of its input patches around `mean`, float64 `(inputs, inputs)`; the diagonal
            alone, `(inputs,)`, where the layer reads more than `MAX_INPUTS`; ones where it is no
            layer whose patches are known (grouped, transposed).
    """

    layer: Layer
    mean: Tensor
    covariance: Tensor


def collect_statistics(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    layers: Sequence[Layer],
    batches: Sequence[Tensor],
    seed: int,
) -> dict[str, Consumer]:
    """Runs calibration images through the base network and measures what consumers read.

    Args:
        model: the base network; run in eval mode, not changed.
        groups: only layers that read their channels are measured.
        layers: all layers of the network.
        batches: images, `(batch, channels, height, width)` each.
        seed: of the positions drawn where there are more than `MAX_PATCHES`.

    Returns:
        Module name -> consumer.
    """
    members = {(m.tensor, m.dim) for group in groups for m in group.members}
    layer_of = {layer.module: layer for layer in layers if (layer.weight, layer.reads) in members}
    images = sum(len(batch) for batch in batches)
    moments: dict[str, _Moments] = {}
    hooks = []
    for name, layer in layer_of.items():
        module = model.get_submodule(name)
        if has_patches(module):
            inputs = model.get_parameter(layer.weight)[0].numel()
            moments[name] = _Moments(
                inputs=inputs,
                at_once=max(1, LARGEST_PATCHES // (inputs * layer.positions)),
                share=min(1.0, MAX_PATCHES / (images * layer.positions)),
                rng=generator(seed, Stream.STATISTICS, name),
            )
            hooks.append(module.register_forward_pre_hook(moments[name].observe))
    try:
        with evaluating(model), torch.inference_mode():
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: moments.pop(name).consumer(layer) if name in moments else _unknown(model, layer)
        for name, layer in layer_of.items()
    }


def _unknown(model: nn.Module, layer: Layer) -> Consumer:
    """Returns a consumer whose inputs count as independent, each of variance one."""
    weight = model.get_parameter(layer.weight)
    inputs = weight.numel() // weight.shape[layer.writes]
    ones = torch.ones(inputs, dtype=torch.float64)
    return Consumer(layer=layer, mean=torch.zeros_like(ones), covariance=ones)


class _Moments:
    """Running first and second moments of a layer's input patches."""

    def __init__(self, inputs: int, at_once: int, share: float, rng: np.random.Generator) -> None:
        """Starts the sums.

        Args:
            inputs: of the layer, for each output position.
            at_once: images whose patches are in memory together.
            share: of the patches that enter.
            rng: draws them.
        """
        self._at_once = at_once
        self._share = share
        self._rng = rng
        self._count = 0
        self._sum = torch.zeros(inputs, dtype=torch.float64)
        shape = (inputs, inputs) if inputs <= MAX_INPUTS else (inputs,)
        self._products = torch.zeros(shape, dtype=torch.float64)

    def observe(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Adds what the module reads; a forward pre-hook."""
        rows = inputs[0]
        # A linear layer's patches are its inputs themselves.
        parts = torch.split(rows, self._at_once) if isinstance(module, nn.Conv2d) else (rows,)
        for part in parts:
            self._add(input_patches(module, part))

    def _add(self, rows: Tensor) -> None:
        if self._share < 1:
            count = max(1, round(self._share * len(rows)))
            chosen = np.sort(self._rng.choice(len(rows), count, replace=False))
            rows = rows[torch.from_numpy(chosen).to(rows.device)]
        self._count += len(rows)
        self._sum += rows.sum(dim=0).cpu()
        full = self._products.ndim == 2
        self._products += (rows.T @ rows if full else rows.square().sum(dim=0)).cpu()

    def consumer(self, layer: Layer) -> Consumer:
        """Ends the sums; to be called once."""
        mean = self._sum / self._count
        if not layer.absorbs_shift:
            mean.zero_()
        covariance = self._products.div_(self._count)  # in place: wide layers have large ones
        if covariance.ndim == 2:
            covariance.addr_(mean, mean, alpha=-1)
        else:
            covariance.sub_(mean.square())
        return Consumer(layer=layer, mean=mean, covariance=covariance)


def has_patches(module: nn.Module) -> bool:
    """Returns whether `input_patches` knows a layer: linear, or an ungrouped `Conv2d`."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def input_patches(module: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the rows that a layer's weight multiplies (im2col), `(positions, inputs)`.

    Raises:
        TypeError: the module is neither a linear layer nor a two-dimensional convolution.
    """
    if isinstance(module, nn.Linear):
        return inputs.flatten(0, -2)
    if not isinstance(module, nn.Conv2d):
        raise TypeError(f"no patches are known for {type(module).__name__}")
    columns = F.unfold(
        pad(module, inputs), module.kernel_size, module.dilation, stride=module.stride
    )
    return columns.transpose(1, 2).flatten(0, 1)


def pad(module: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Returns a convolution's inputs with the padding that it adds itself."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)


def gram_blocks(
    model: nn.Module, groups: Sequence[ChannelGroup], consumers: Mapping[str, Consumer]
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Returns the Gram matrices of the two-step fitness, `dE(mask) = p' G p`.

    When a consumer with weight W and input covariance S loses the input channels p, its output
    error is `tr(W_p S_pp W_p')` (Hu et al. 2018, arXiv 1805.11394, with the layer-wise Hessian
    of Dong et al. 2017, arXiv 1705.07565). So `G_ij = tr(W_i S_ij W_j')`. Each consumer is
    divided by its output energy `tr(W S W')`, and a group sums over its consumers.

    Returns:
        `(group, group)` -> `(channels, channels)`, the pair in network order; a block between
        two groups exists where one consumer reads both.
    """
    readers: dict[tuple[str, int], list[tuple[str, NDArray[np.int64]]]] = {}
    blocks: dict[tuple[str, str], NDArray[np.float64]] = {}
    for group in groups:
        blocks[group.name, group.name] = np.zeros((group.size, group.size))
        for member in group.members:
            axis = member.tensor, member.dim
            readers.setdefault(axis, []).append((group.name, group.index(member)))
    for consumer in consumers.values():
        layer = consumer.layer
        if layer.reads is None:
            continue
        weight = model.get_parameter(layer.weight).movedim(layer.reads, 1)
        gram = channel_gram(weight, consumer.covariance)
        energy = gram.sum()
        if energy <= 0:
            continue  # the layer's output is constant: nothing can be lost
        pairs = combinations_with_replacement(readers[layer.weight, layer.reads], 2)
        for (left, rows), (right, columns) in pairs:
            block = gram[rows[:, None, :, None], columns[None, :, None, :]].sum((2, 3)) / energy
            blocks[left, right] = blocks.get((left, right), 0) + block
    return blocks


def channel_gram(weight: Tensor, covariance: Tensor) -> NDArray[np.float64]:
    """Returns `tr(W_i S_ij W_j')` for all input channels i and j of one layer.

    Args:
        weight: `(out_channels, in_channels, ...)`.
        covariance: `(inputs, inputs)`, or its diagonal `(inputs,)`.

    Returns:
        `(in_channels, in_channels)`.
    """
    flat = weight.detach().flatten(1).double().cpu()
    channels, kernel = weight.shape[1], flat.shape[1] // weight.shape[1]
    if covariance.ndim == 1:
        energies = flat.square().sum(dim=0) * covariance
        return np.diag(energies.reshape(channels, kernel).sum(dim=1).numpy())
    products = (flat.T @ flat) * covariance
    return products.reshape(channels, kernel, channels, kernel).sum((1, 3)).numpy()
