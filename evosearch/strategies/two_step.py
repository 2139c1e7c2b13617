"""The two-step approximation: the error of dropping channels, as a quadratic form.

Hu et al. 2018 (arXiv 1805.11394) replace the network's loss by the output error of the layers
that read a channel group, and that error by its Taylor expansion at the trained weights. With
`p = 1 - keep mask` this is `dE = p' G p`; the Gram matrices `G` are measured once per run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError
from evosearch.space.knowledge import Array
from evosearch.space.mask import Bits, Mask
from evosearch.space.space import SearchSpace, Widths

CURVE_POINTS = 64
"""At most this many widths of a group get a point on its error curve."""
STRIPE, BATCH = 64, 1000
"""Channels and masks that are scored from scratch at a time: what the processor's cache holds."""


@dataclass(frozen=True, kw_only=True)
class ErrorCurve:
    """The least known error of one group at its widths.

    Attributes:
        widths: legal widths, ascending, `(points,)`.
        errors: `(points,)`, never rising with the width.
    """

    widths: Widths
    errors: Array


def flip_deltas(gram: Array, pruned: Array, product: Array) -> Array:
    """Returns the change of `p' G p` for flipping each channel alone: `2 s (Gp)_i + G_ii`.

    Args:
        gram: `(channels, channels)`, symmetric.
        pruned: `p`, 1.0 where a channel is dropped, `(channels,)` or `(population, channels)`.
        product: `G p`, likewise; kept by the caller, so that this costs O(channels).
    """
    return np.asarray((1 - 2 * pruned) * 2 * product + np.diagonal(gram))


def quadratic_errors(gram: Array, pruned: Bits) -> Array:
    """Returns `p' G p` of many masks from scratch, `(population,)`.

    G is symmetric: each stripe of columns needs only the rows from its own on, which spares
    nearly half of the products. Masks go in batches that stay in the processor's cache.

    Args:
        gram: `(channels, channels)`, symmetric.
        pruned: `p`, True where a channel is dropped, `(population, channels)`.
    """
    total = np.zeros(len(pruned))
    for first in range(0, len(pruned), BATCH):
        batch = pruned[first : first + BATCH].astype(np.float64)
        for start in range(0, len(gram), STRIPE):
            end = start + STRIPE
            product = batch[:, start:end] @ gram[start:end, start:end]
            if end < len(gram):
                product += 2 * (batch[:, end:] @ gram[end:, start:end])
            own = np.einsum("ij,ij->i", product, batch[:, start:end])
            total[first : first + BATCH] += own
    return total


def child_errors(
    gram: Array,
    pruned: Array,
    product: Array,
    errors: Array,
    parents: NDArray[np.int64],
    flips: NDArray[np.int64],
) -> Array:
    """Returns the errors of children that differ from scored parents by a few bits.

    With `s` the signs of the flips, `dE = 2 s' (Gp) + s' G s`: k flips cost O(k^2), however many
    channels there are.

    Args:
        gram: `(channels, channels)`, symmetric.
        pruned: of the parents, 1.0 where a channel is dropped, `(population, channels)`.
        product: `G p` of the parents, likewise.
        errors: of the parents, `(population,)`.
        parents: row of each child's parent, `(children,)`.
        flips: channels that each child flips, each once, `(children, k)`; -1 is none.

    Returns:
        `(children,)`.
    """
    signs = np.where(flips < 0, 0.0, 1 - 2 * pruned[parents[:, None], flips])
    total = errors[parents] + 2 * np.einsum("ci,ci->c", signs, product[parents[:, None], flips])
    for i in range(flips.shape[1]):
        total += signs[:, i] ** 2 * gram[flips[:, i], flips[:, i]]
        for j in range(i):
            total += 2 * signs[:, i] * signs[:, j] * gram[flips[:, i], flips[:, j]]
    return np.asarray(total)


@final
class TwoStep:
    """Errors of masks under the two-step approximation, and good channels for given widths."""

    def __init__(self, space: SearchSpace, gram: Mapping[tuple[str, str], Array]) -> None:
        """Takes the Gram matrices of `Knowledge.gram`.

        Raises:
            InputError: a group has no Gram matrix, or a block does not match the space.
        """
        self._space = space
        self._gram = dict(gram)
        for group in space.groups:
            if (group.name, group.name) not in self._gram:
                raise InputError(f"the knowledge holds no Gram matrix of group {group.name!r}")
        for (left, right), block in self._gram.items():
            expected = (space.sizes.get(left), space.sizes.get(right))
            if block.shape != expected:
                raise InputError(
                    f"Gram matrix of {left!r} and {right!r}: the space expects the shape"
                    f" {expected}, the knowledge holds {block.shape}"
                )
            if left != right and (right, left) in self._gram:
                raise InputError(f"Gram matrix of {left!r} and {right!r} comes in both orders")
        self._orders: dict[str, NDArray[np.int64]] = {}
        self._subsets: dict[tuple[str, int], Bits] = {}
        self._curves: dict[str, ErrorCurve] = {}

    def gram(self, group: str) -> Array:
        """Returns a group's own Gram matrix, `(channels, channels)`."""
        return self._gram[group, group]

    def errors(self, bits: Mapping[str, Bits]) -> Array:
        """Returns the total error of every mask of a population, `(population,)`.

        Args:
            bits: group name -> keep masks, `(population, channels)`; every group of the space.
        """
        pruned = {name: 1.0 - keep for name, keep in bits.items()}
        total = np.zeros(len(next(iter(pruned.values()))))
        for (left, right), block in self._gram.items():
            # Only one of the blocks (g, h) and (h, g) is stored; the form holds both.
            share = 1 if left == right else 2
            total += share * np.einsum("ij,ij->i", pruned[left] @ block, pruned[right])
        return total

    def group_errors(self, group: str, bits: Bits) -> Array:
        """Returns the errors `(population,)` of masks of one group, all others intact.

        Args:
            group: its name.
            bits: keep masks, `(population, channels)`.
        """
        return quadratic_errors(self.gram(group), ~bits)

    def removal_order(self, group: str) -> NDArray[np.int64]:
        """Returns the channels in the order in which greedy backward elimination drops them.

        Each step drops the channel that raises the error least; O(channels^2) in all.
        """
        if group not in self._orders:
            gram = self.gram(group)
            pruned, product = np.zeros(len(gram)), np.zeros(len(gram))
            order = np.empty(len(gram), dtype=np.int64)
            for step in range(len(gram)):
                deltas = flip_deltas(gram, pruned, product)
                order[step] = np.argmin(np.where(pruned > 0, np.inf, deltas))
                pruned[order[step]] = 1
                product += gram[order[step]]
            self._orders[group] = order
        return self._orders[group]

    def subset(self, group: str, width: int) -> Bits:
        """Returns the channels to keep at a width, `(channels,)`.

        Greedy removal, then steepest descent over pair swaps (drop one kept channel, bring one
        dropped back) until no swap lowers the error. The same width always gives the same.

        Args:
            group: its name.
            width: number of channels to keep, from 0 to the group's size.
        """
        if (group, width) not in self._subsets:
            size = len(self.gram(group))
            if not 0 <= width <= size:
                raise InputError(f"group {group!r} has {size} channels; cannot keep {width}")
            pruned = np.zeros(size)
            pruned[self.removal_order(group)[: size - width]] = 1
            keep = descend_by_swaps(self.gram(group), pruned) == 0
            keep.flags.writeable = False
            self._subsets[group, width] = keep
        return self._subsets[group, width]

    def curve(self, group: str) -> ErrorCurve:
        """Returns the error of `subset` over the group's legal widths.

        A group with more than `CURVE_POINTS` legal widths gets that many, evenly spread with
        both ends. Where a smaller width has a lower error (its dropped channels cancel), its
        error counts for the larger width too, so that the curve never rises.
        """
        if group not in self._curves:
            legal = np.array(
                next(g for g in self._space.groups if g.name == group).legal_widths(),
                dtype=np.int64,
            )
            points = min(CURVE_POINTS, legal.size)
            widths = legal[np.linspace(0, legal.size - 1, points).round().astype(np.int64)]
            bits = np.stack([self.subset(group, int(width)) for width in widths])
            errors = np.maximum(self.group_errors(group, bits), 0.0)
            self._curves[group] = ErrorCurve(widths=widths, errors=np.minimum.accumulate(errors))
        return self._curves[group]

    def mask(self, widths: Widths) -> Mask:
        """Returns the mask of `subset` for every group; `widths` is `(groups,)`."""
        return Mask(
            {
                group.name: self.subset(group.name, int(width))
                for group, width in zip(self._space.groups, widths, strict=True)
            }
        )

    def nested_mask(self, widths: Widths) -> Mask:
        """Returns the mask of the last channels of every group's removal order.

        A narrower width has a part of a wider one's channels. `widths` is `(groups,)`.
        """
        bits = {}
        for group, width in zip(self._space.groups, widths, strict=True):
            kept = np.zeros(group.size, dtype=np.bool_)
            kept[self.removal_order(group.name)[group.size - int(width) :]] = True
            bits[group.name] = kept
        return Mask(bits)


def descend_by_swaps(gram: Array, pruned: Array) -> Array:
    """Returns a set of the same size that no single swap improves, by steepest descent.

    Dropping k and bringing d back changes the error by `flip_k + flip_d - 2 G_kd`.

    Args:
        gram: `(channels, channels)`, symmetric.
        pruned: 1.0 where a channel is dropped, `(channels,)`.
    """
    pruned = pruned.copy()
    product = gram @ pruned
    # Under this a gain is rounding, and descent could go in circles.
    least_gain = 1e-12 * float(np.trace(gram))
    while 0 < pruned.sum() < len(pruned):
        kept, dropped = np.flatnonzero(pruned == 0), np.flatnonzero(pruned)
        flips = flip_deltas(gram, pruned, product)
        changes = flips[kept, None] + flips[None, dropped] - 2 * gram[np.ix_(kept, dropped)]
        best = int(np.argmin(changes))
        if changes.flat[best] >= -least_gain:
            break
        drop, restore = kept[best // len(dropped)], dropped[best % len(dropped)]
        pruned[drop], pruned[restore] = 1, 0
        product += gram[drop] - gram[restore]
    return pruned
