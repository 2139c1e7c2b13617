"""Children of masks: crossover and mutation of a whole population at once.

A population is a matrix of keep bits, all groups side by side. A child takes each group from one
of two parents; then one operator changes some groups. Widths stay legal by construction, and each
group's two-step error is carried along: a group taken over keeps it, a few flipped bits change it
incrementally (`two_step.child_errors`), a group set to its best known channels has it on file.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.space.knowledge import Array
from evosearch.space.space import SearchSpace, Widths
from evosearch.strategies.genetic_layer import FLIP_TEMPERATURE
from evosearch.strategies.population import Layout, Levels, Population, Rows, nearest_rows
from evosearch.strategies.two_step import TwoStep, child_errors, flip_deltas

FEW = 8
"""A group that changes by at most so many bits may flip them; else its channels are set anew."""
SWAPS = 3
"""Most pairs of channels that one random swap exchanges in a group."""
REACH = 1 / 12
"""Mean change of a group's width, as a share of its legal widths."""


@final
@dataclass(frozen=True, kw_only=True)
class _Moves:
    """Bits to flip in one group of some children.

    Attributes:
        drops, restores: numbers of channels, `(children,)`.
        informed: whether flip errors decide which, or chance alone, `(children,)`.
    """

    drops: Rows
    restores: Rows
    informed: NDArray[np.bool_]


OPERATORS = ("cross", "swap", "switch", "resize", "refine")
"""The operators that make a child, besides crossover.

`cross` nothing more; `swap` random channels exchanged, widths kept; `switch` one group grows and
another shrinks by about as much cost (EvoPress, arXiv 2410.14649); `resize` groups grow, or
shrink; `refine` a channel that costs little is dropped and the one that helps most restored (Hu
et al. 2018, arXiv 1805.11394).
"""


@final
class Variation:
    """Makes children in one space."""

    def __init__(
        self, space: SearchSpace, two_step: TwoStep, resource: str, crossover: float
    ) -> None:
        """Lays out the space's groups.

        Args:
            space: what is searched.
            two_step: its errors.
            resource: whose cost a level switch keeps.
            crossover: share of children with two parents.
        """
        self._space, self._resource = space, resource
        self._crossover = crossover
        self._slices = Layout(space, two_step).slices
        legal = [np.array(group.legal_widths(), dtype=np.int64) for group in space.groups]
        self._counts = np.array([len(widths) for widths in legal])
        longest = int(self._counts.max())
        self._legal = np.stack([np.pad(w, (0, longest - len(w)), "edge") for w in legal])
        # Width -> nearest legal step, for all groups one after the other.
        self._bases = np.cumsum(space.full_widths + 1) - space.full_widths - 1
        self._steps = np.concatenate(
            [nearest_rows(w, g.size) for w, g in zip(legal, space.groups, strict=True)]
        )
        self._gram = [two_step.gram(name) for name in space.sizes]
        # A last row of zeros, for the index -1.
        self._padded = [np.concatenate([g, np.zeros((1, len(g)))]) for g in self._gram]
        self._levels = [Levels.of(two_step, name, size) for name, size in space.sizes.items()]

    def children(self, parents: Population, count: int, rng: np.random.Generator) -> Population:
        """Returns children with legal widths; some may equal a parent or break the budget.

        Args:
            parents: at least one.
            count: number of children.
            rng: source of all draws.
        """
        groups = len(self._gram)
        first, second = rng.integers(len(parents), size=(2, count))
        crossed = rng.random(count) < self._crossover
        other = crossed[:, None] & (rng.random((count, groups)) < 0.5)
        source = np.where(other, second[:, None], first[:, None])
        operators = rng.integers(len(OPERATORS), size=count)
        widths = parents.widths[source, np.arange(groups)]
        targets = self._targets(widths, operators, rng)
        pairs = self._pairs(widths, operators, rng)
        crossed_with = np.where(crossed, parents.parents[second, 0], -1)
        children = Population(
            bits=np.empty((count, parents.bits.shape[1]), dtype=np.bool_),
            widths=widths,
            errors=parents.errors[source, np.arange(groups)],
            parents=np.stack([parents.parents[first, 0], crossed_with], axis=1),
            operators=operators,
        )
        changes = targets - widths
        flipped = (np.abs(changes) <= FEW) & (rng.random((count, groups)) < 0.5)
        for group in range(groups):
            own = self._slices[group]
            children.bits[:, own] = parents.bits[source[:, group], own]
            moved = changes[:, group] != 0
            few = np.flatnonzero((moved & flipped[:, group]) | (pairs[:, group] > 0))
            if few.size:
                moves = _Moves(
                    drops=pairs[few, group] + np.maximum(-changes[few, group], 0),
                    restores=pairs[few, group] + np.maximum(changes[few, group], 0),
                    informed=operators[few] != OPERATORS.index("swap"),
                )
                self._flip(group, parents, children, few, source[few, group], moves, rng)
            anew = np.flatnonzero(moved & ~flipped[:, group])
            if anew.size:
                levels = self._levels[group]
                rows = levels.nearest[targets[anew, group]]
                children.bits[anew, own] = levels.bits[rows]
                children.widths[anew, group] = levels.widths[rows]
                children.errors[anew, group] = levels.errors[rows]
        return children

    def _targets(self, widths: Widths, operators: Rows, rng: np.random.Generator) -> Widths:
        """Returns the widths that children shall have, `(children, groups)`."""
        steps = self._steps[self._bases + widths]
        far = 1 + rng.exponential(self._counts * REACH, size=steps.shape).astype(np.int64)
        signs = rng.choice([-1, 1], size=len(steps))
        switch, resize = (operators == OPERATORS.index(name) for name in ("switch", "resize"))
        chosen = _some_groups(steps.shape, rng) & resize[:, None]
        steps = np.clip(steps + signs[:, None] * far * chosen, 0, self._counts - 1)
        groups = len(self._counts)
        rows = np.flatnonzero(switch)
        if groups > 1 and rows.size:
            # One group moves; the other moves back by as many channels as cost the same.
            one = rng.integers(groups, size=rows.size)
            two = (one + 1 + rng.integers(groups - 1, size=rows.size)) % groups
            moved = steps[rows, one] + signs[rows] * far[rows, one]
            steps[rows, one] = np.clip(moved, 0, self._counts[one] - 1)
            after, probe = widths[rows].copy(), widths[rows].copy()
            each = np.arange(rows.size)
            after[each, one] = self._legal[one, steps[rows, one]]
            probe[each, one] = after[each, one]
            probe[each, two] += 1
            costs = self._space.costs(np.concatenate([widths[rows], after, probe]))
            before, changed, slope = np.split(costs[self._resource].astype(np.float64), 3)
            slope = np.maximum(slope - changed, 1e-9)
            wanted = after[each, two] + np.clip((before - changed) / slope, -1e6, 1e6)
            sizes = self._space.full_widths[two]
            wanted = np.clip(np.round(wanted), 0, sizes).astype(np.int64)
            steps[rows, two] = self._steps[self._bases[two] + wanted]
        return np.asarray(self._legal[np.arange(groups), steps])

    def _pairs(self, widths: Widths, operators: Rows, rng: np.random.Generator) -> Rows:
        """Returns how many pairs of channels each child exchanges, `(children, groups)`."""
        pairs = np.zeros(widths.shape, dtype=np.int64)
        chosen = _some_groups(widths.shape, rng)
        swap, refine = (operators == OPERATORS.index(name) for name in ("swap", "refine"))
        drawn = 1 + rng.integers(SWAPS, size=widths.shape)
        pairs[swap] = (drawn * chosen)[swap]
        pairs[refine] = chosen[refine]
        most = np.minimum(widths, self._space.full_widths - widths)
        return np.asarray(np.minimum(pairs, most))

    def _flip(
        self,
        group: int,
        parents: Population,
        children: Population,
        rows: Rows,
        source: Rows,
        moves: _Moves,
        rng: np.random.Generator,
    ) -> None:
        """Flips a few bits of one group in some children."""
        gram, own = self._gram[group], self._slices[group]
        pruned = (~parents.bits[:, own]).astype(np.float64)
        product = pruned @ gram
        keep = parents.bits[source, own]
        deltas = flip_deltas(gram, pruned, product)[source]
        # Gumbel noise makes the lowest key a roulette; without pull it is a uniform draw.
        scale = FLIP_TEMPERATURE * np.abs(deltas).mean(axis=1)
        pull = np.where(moves.informed & (scale > 0), 1 / np.where(scale > 0, scale, 1), 0)[
            :, None
        ]
        noise = rng.gumbel(size=deltas.shape)
        drops = _lowest(np.where(keep, pull * deltas - noise, np.inf), moves.drops)
        # What a restored channel is worth changes with what is dropped beside it.
        deltas = deltas - 2 * self._padded[group][drops].sum(axis=1)
        restores = _lowest(np.where(keep, np.inf, pull * deltas - noise), moves.restores)
        flips = np.concatenate([drops, restores], axis=1)
        errors = parents.errors[:, group]
        children.errors[rows, group] = child_errors(gram, pruned, product, errors, source, flips)
        children.widths[rows, group] += moves.restores - moves.drops
        child, place = np.nonzero(flips >= 0)
        children.bits[rows[child], own.start + flips[child, place]] ^= True


def _some_groups(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Returns which groups of each child change: one at random, and each other by chance.

    The chance is such that one to three groups change on average, as in EvoPress.
    """
    count, groups = shape
    chosen = rng.random(shape) < rng.integers(3, size=(count, 1)) / groups
    chosen[np.arange(count), rng.integers(groups, size=count)] = True
    return chosen


def _lowest(keys: Array, counts: Rows) -> Rows:
    """Returns the columns of each row's lowest keys, `(rows, most)`; -1 after its count."""
    most = int(counts.max())
    if most == 0:
        return np.full((len(keys), 0), -1)
    columns = np.argpartition(keys, min(most, keys.shape[1]) - 1, axis=1)[:, :most]
    order = np.argsort(np.take_along_axis(keys, columns, axis=1), axis=1, kind="stable")
    columns = np.take_along_axis(columns, order, axis=1)
    return np.where(np.arange(columns.shape[1]) < counts[:, None], columns, -1)
