"""LASSO selection layer after layer, on the inputs of the network as cut and refitted so far."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from evosearch.criteria.reconstruction import lasso_scores
from evosearch.criteria.scored_network import Array, Place, ScoredNetwork
from evosearch.refit.compensation import Compensation
from evosearch.refit.gram import MAX_INPUTS, between, channel_gram
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.space.space import Widths
from evosearch.surgery.compaction import Cut, compact, dropped_positions
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.narrowing import narrow
from evosearch.surgery.tracing.layer import Layer

SINGULAR = 1e-10
"""Share of a Gram matrix's largest eigenvalue below which the others count as zero."""


def select_by_lasso(
    model: nn.Module, discovery: Discovery, compensation: Compensation, widths: Widths
) -> Mask:
    """Returns the channels of given widths, group after group in the order of the network.

    He et al. 2017 (arXiv 1707.06168), eq. 2: `argmin_b |Y - sum_i b_i X_i W_i'|^2 + lambda |b|_1`
    with the inputs X of the network in which the groups before are cut, and its layers refitted,
    and the outputs Y of the base network: so a channel that feeds on what is gone is not chosen,
    and one that makes up for it is. The criterion `lasso` has X and Y of the base network. Ours:
    the readers of a coupled group are rebuilt together, each divided by its output energy.

    Args:
        model: the base network, in eval mode; not changed.
        discovery: its groups and layers.
        compensation: of the same network.
        widths: channels to keep, `(groups,)`.
    """
    groups = discovery.space.groups
    mask = discovery.space.full_mask()
    for group, width in zip(groups, widths, strict=True):
        if width == group.size:
            continue
        network = compact(model, groups, mask).eval()
        here = narrow(discovery, mask)
        own = next(g for g in here.space.groups if g.name == group.name)
        seen = ScoredNetwork(model=network, groups=[own], layers=here.layers)
        scores = _scores(seen, own, compensation, dropped_positions(groups, mask))
        best = np.argsort(-scores, kind="stable")[:width]
        kept = np.isin(np.arange(group.size), best)
        mask = Mask({**mask, group.name: kept})
    return mask


def _scores(
    network: ScoredNetwork,
    group: ChannelGroup,
    compensation: Compensation,
    drops: Mapping[str, Cut],
) -> Array:
    """Refits the network, and returns the group's scores `(channels,)` as it is on the way."""
    readers = {place.layers[0].module: place for place in network.readers[group.name]}
    gram, correlation = np.zeros((group.size, group.size)), np.zeros(group.size)

    def on_fit(layer: Layer, rows: Tensor, targets: Tensor) -> None:
        if (place := readers.pop(layer.module, None)) is not None:
            own, shared = contributions(network.weight(place), place, rows, targets)
            gram[:] += own
            correlation[:] += shared

    compensation.apply(network.model, drops, on_fit)
    for place in readers.values():  # whose patches are unknown: as if inputs were independent
        energies = place.rows(network.weight(place)).square().sum(1).cpu().numpy()
        gram[:] += np.diag(energies / (energies.sum() or 1.0))
        correlation[:] += energies / (energies.sum() or 1.0)
    # `inputs.T @ inputs` is the matrix, and `inputs.T @ target` the correlation.
    values, vectors = np.linalg.eigh(gram)
    roots = np.sqrt(values.clip(min=0))
    there = values > SINGULAR * max(values[-1], 0)
    target = np.where(there, vectors.T @ correlation, 0) / np.where(there, roots, 1)
    return lasso_scores(roots[:, None] * vectors.T, target)


def contributions(
    weight: Tensor, place: Place, rows: Tensor, targets: Tensor
) -> tuple[Array, Array]:
    """Returns what a reader's contributions have in common, with each other and with the target.

    The target is what the channels of other groups leave of the base network's output.

    Args:
        weight: of the reader, float64 `(outputs, inputs, ...)`.
        place: of the group's channels in it.
        rows: what it reads, `(rows, inputs)`.
        targets: what the base network's puts out there, `(rows, outputs)`.

    Returns:
        `(channels, channels)` and `(channels,)`, divided by the energy of the targets.
    """
    rows, targets = rows.double().cpu(), targets.double().cpu()
    energy = float(targets.square().sum()) / len(rows) or 1.0
    wide = rows.shape[1] > MAX_INPUTS
    covariance = (rows.square().sum(0) if wide else rows.T @ rows) / len(rows)
    whole = channel_gram(weight, covariance)
    joint = weight.flatten(1).cpu().T * (rows.T @ targets / len(rows))
    shared = joint.sum(1).reshape(weight.shape[1], -1).sum(1).numpy()
    if not wide:
        others = np.setdiff1d(np.arange(weight.shape[1]), place.index)
        shared = shared - whole[:, others].sum(1)
    own = between(whole, place.index, place.index)
    return own / energy, shared[place.index].sum(1) / energy
