"""Second-order statistics of layer inputs, and the Gram matrices of the two-step fitness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.models.modes import evaluating
from evosearch.refit.moments import symmetric_product
from evosearch.refit.patches import Calls, has_patches, input_patches
from evosearch.seeding import Stream, generator
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.tracing.walk import Layer

MAX_PATCHES = 100_000
"""Patches per layer that enter its statistics; beyond that, positions are drawn."""
MAX_INPUTS = 5_000
"""Layers that read more inputs than this keep variances only, and their weights as they are."""
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
    batches: Sequence[Inputs],
    seed: int,
) -> dict[str, Consumer]:
    """Runs calibration images through the base network and measures what consumers read.

    Args:
        model: the base network; run in eval mode, not changed.
        groups: only layers that read their channels are measured.
        layers: all layers of the network.
        batches: inputs, such as images `(batch, channels, height, width)`.
        seed: of the positions drawn where there are more than `MAX_PATCHES`.

    Returns:
        Module name -> consumer.
    """
    members = {(m.tensor, m.dim) for group in groups for m in group.members}
    layer_of = {layer.module: layer for layer in layers if (layer.weight, layer.reads) in members}
    images = sum(len(batch) for batch in batches)
    moments: dict[str, _Moments] = {}
    for name, layer in layer_of.items():
        if has_patches(layer):
            inputs = model.get_parameter(layer.weight)[0].numel()
            moments[name] = _Moments(
                inputs=inputs,
                at_once=max(1, LARGEST_PATCHES // (inputs * layer.positions)),
                share=min(1.0, MAX_PATCHES / (images * layer.positions)),
                rng=generator(seed, Stream.STATISTICS, name),
            )

    def observe(layer: Layer, inputs: Tensor) -> None:
        moments[layer.module].observe(layer, inputs)

    calls = Calls(model, [layer_of[name] for name in moments], before=observe)
    with evaluating(model), torch.inference_mode(), calls:
        for batch in batches:
            call(model, batch)
    return {
        name: moments.pop(name).consumer(layer)
        if name in moments and moments[name].count
        else _unknown(model, layer)
        for name, layer in layer_of.items()
    }


def _unknown(model: nn.Module, layer: Layer) -> Consumer:
    """Returns a consumer whose inputs count as independent, each of variance one."""
    weight = model.get_parameter(layer.weight)
    inputs = weight.numel() // weight.shape[layer.writes]
    ones = torch.ones(inputs, dtype=torch.float64)
    return Consumer(layer=layer, mean=torch.zeros_like(ones), covariance=ones)


class _Moments:
    """Running first and second moments of a layer's input patches.

    They are taken around the mean of the first patches: products of values far from zero would
    lose their spread in float32.
    """

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
        self.count = 0
        self._center = torch.zeros(())
        self._sum = torch.zeros(inputs, dtype=torch.float64)
        shape = (inputs, inputs) if inputs <= MAX_INPUTS else (inputs,)
        self._products = torch.zeros(shape, dtype=torch.float64)

    def observe(self, layer: Layer, inputs: Tensor) -> None:
        """Adds what one call of the layer reads."""
        # A linear layer's patches are its inputs themselves.
        parts = (inputs,) if layer.geometry is None else torch.split(inputs, self._at_once)
        for part in parts:
            self._add(input_patches(layer, part))

    def _add(self, rows: Tensor) -> None:
        if self._share < 1:
            count = max(1, round(self._share * len(rows)))
            chosen = np.sort(self._rng.choice(len(rows), count, replace=False))
            rows = rows[torch.from_numpy(chosen).to(rows.device)]
        if not self.count:
            self._center = rows.mean(dim=0)
        rows = rows - self._center
        self.count += len(rows)
        self._sum += rows.sum(dim=0).cpu()
        full = self._products.ndim == 2
        self._products += (symmetric_product(rows) if full else rows.square().sum(dim=0)).cpu()

    def consumer(self, layer: Layer) -> Consumer:
        """Ends the sums; to be called once."""
        offset = self._sum / self.count
        mean = self._center.double().cpu() + offset
        covariance = self._products.div_(self.count)  # in place: wide layers have large ones
        _add_square(covariance, offset, -1)
        if not layer.absorbs_shift:
            _add_square(covariance, mean, 1)
            mean = torch.zeros_like(mean)
        return Consumer(layer=layer, mean=mean, covariance=covariance)


def _add_square(moments: Tensor, vector: Tensor, factor: int) -> None:
    """Adds `factor` times a vector's outer product to second moments, or to their diagonal."""
    if moments.ndim == 2:
        moments.addr_(vector, vector, alpha=factor)
    else:
        moments.add_(vector.square(), alpha=factor)


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
            block = between(gram, rows, columns) / energy
            blocks[left, right] = blocks.get((left, right), 0) + block
    return blocks


def channel_gram(weight: Tensor, covariance: Tensor) -> NDArray[np.float64]:
    """Returns `tr(W_i S_ij W_j')` for all input channels i and j of one layer.

    Args:
        weight: `(out_channels, in_channels, ...)`.
        covariance: `(inputs, inputs)`, or its diagonal `(inputs,)`.

    Returns:
        `(in_channels, in_channels)`, or the diagonal of that, `(in_channels,)`, where the
        covariance is one.
    """
    flat = weight.detach().flatten(1).double().cpu()
    channels, kernel = weight.shape[1], flat.shape[1] // weight.shape[1]
    if covariance.ndim == 1:
        energies = flat.square().sum(dim=0) * covariance
        return energies.reshape(channels, kernel).sum(dim=1).numpy()
    products = (flat.T @ flat) * covariance
    return products.reshape(channels, kernel, channels, kernel).sum((1, 3)).numpy()


def between(
    gram: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns the sums of a layer's Gram matrix over the positions of two groups' channels.

    Args:
        gram: `(in_channels, in_channels)`, or its diagonal.
        rows: positions along the layer's inputs of one group, `(channels, positions)`.
        columns: the same of another group, which shares none of them, or of the same one.
    """
    if gram.ndim == 2:
        sums: NDArray[np.float64]
        sums = gram[rows[:, None, :, None], columns[None, :, None, :]].sum((2, 3))
        return sums
    if np.array_equal(rows, columns):
        return np.diag(gram[rows].sum(axis=1))
    return np.zeros((len(rows), len(columns)))
