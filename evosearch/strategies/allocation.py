"""The allocation of widths to groups: the plan of least weighted error within a budget.

The error of a plan is a sum over groups, so with costs linearised at some plan (each group's
cost with the others held) the best plan is a knapsack, solved by a dynamic program over widths
(as SPDY does, Frantar and Alistarh 2022, arXiv 2201.13096). Costs are products of widths, so
linearise, solve, repair and repeat; a local search with the true costs ends it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from evosearch.space.budget import Bound, Budget
from evosearch.space.knowledge import Array
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace, Widths
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.strategies.knapsack import knapsack
from evosearch.strategies.two_step import ErrorCurve

ROUNDS = 6
"""Most times that costs are linearised."""
START_GROUPS = 40
"""The iteration starts from this many plans, divided by groups and limits; from 1 to 5."""
BUCKETS = 1000
"""Equal parts of the budget that the dynamic program counts in."""
REACH = 16
"""Options up or down that one group moves at once in the local search, at most."""
PAIRED_MOVES = 128
"""The local search looks at about `(2 * this)^2` pairs of moves at a time."""

Steps = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """The tables that allocations of one space share.

    Attributes:
        space: exact costs.
        options: widths to choose from, ascending, `(groups, options)`; short rows repeat their
            last width.
        count: number of distinct options, `(groups,)`.
        errors: error of each option, falling, `(groups, options)`; infinite beyond `count`.
        coefficients: of every resource's forms; see `Polynomials.coefficients`.
    """

    space: SearchSpace
    options: Widths
    count: NDArray[np.int64]
    errors: Array
    coefficients: dict[str, tuple[Array, Array]]


@final
class Allocator:
    """Allocates one space's budgets, many times over, from the same error curves."""

    def __init__(self, space: SearchSpace, curves: Mapping[str, ErrorCurve]) -> None:
        """Takes an error curve for every group; its widths are the ones chosen from.

        The smallest width of a curve must be the group's smallest legal one.
        """
        chosen = [_decreasing(curves[group.name]) for group in space.groups]
        length = max(len(curve.widths) for curve in chosen)
        self._tables = _Tables(
            space=space,
            options=np.stack(
                [_padded(curve.widths, length, curve.widths[-1]) for curve in chosen]
            ),
            count=np.array([len(curve.widths) for curve in chosen]),
            errors=np.stack([_padded(curve.errors, length, np.inf) for curve in chosen]),
            coefficients={name: space.forms[name].coefficients() for name in RESOURCES},
        )

    def allocate(self, weights: Array, budget: Budget) -> Widths:
        """Returns the widths of least `sum_g weights_g * error_g(width_g)` found in the budget.

        Args:
            weights: positive, `(groups,)`.
            budget: its upper end is met.

        Returns:
            Legal widths, `(groups,)`.

        Raises:
            InfeasibleBudget: no legal plan fits.
        """
        upper = budget.at(1.0)
        self._tables.space.require_reachable(upper)
        return _Solver(self._tables, np.asarray(weights, dtype=np.float64), upper).solve()


@final
class _Solver:
    """One allocation. A plan is one option (an index into the curve) per group: `steps`."""

    def __init__(self, tables: _Tables, weights: Array, budget: Budget) -> None:
        self._space, self._budget = tables.space, budget
        self._options, self._count = tables.options, tables.count
        self._weighted = weights[:, None] * tables.errors
        self._rows = np.arange(len(weights))
        # Limits: the forms that must stay under the bounds, each row as a share of its bound.
        self._limiting = {
            name: self._binding(name, bound) for name, bound in budget.bounds.items()
        }
        rows = [(name, form) for name, own in self._limiting.items() for form in own]
        highs = np.array([budget.bounds[name].high for name, _ in rows])
        parts = [[tables.coefficients[name][i][form] for name, form in rows] for i in (0, 1)]
        self._linear = np.stack(parts[0]) / highs[:, None]
        self._quadratic = np.stack(parts[1]) / highs[:, None, None]

    def _binding(self, name: str, bound: Bound) -> Steps:
        """Returns which forms of a resource are over its bound at full width, or the largest."""
        full = self._space.forms[name].values(self._space.full_widths[None])[0]
        over = np.flatnonzero(full > bound.high)
        return over if over.size else np.array([np.argmax(full)])

    def solve(self) -> Widths:
        best, seen = np.zeros_like(self._count), set()
        for start, mix in product(self._starts(), self._mixes()):
            plan = self._iterated(start, mix)
            if plan.tobytes() not in seen:
                seen.add(plan.tobytes())
                best = min(best, self._searched(plan), key=self._error)
        return self._widths(best)

    def _starts(self) -> list[Steps]:
        """Returns the plans to linearise at first: few of many groups, where one is enough.

        Products of widths have several optima (a narrow group beside a wide one, or the other
        way round), hence starts at the extremes.
        """
        uniform = uniform_widths(self._space, self._budget)
        last, odd = self._count - 1, self._rows % 2
        starts = [
            np.minimum((self._options <= uniform[:, None]).sum(axis=1) - 1, last),
            last * odd,
            last * (1 - odd),
            last,
            last * 0,
        ]
        return starts[: max(1, START_GROUPS // self._linear.size)]

    def _mixes(self) -> Array:
        """Returns Lagrangian shares of the limits to begin with, `(resources, limits)`.

        Each resource has most of one; a resource of many limits has them share that.
        """
        counts = [len(own) for own in self._limiting.values()]
        rows = np.repeat(np.eye(len(counts)), counts, axis=1) / np.repeat(counts, counts)
        return np.asarray(0.9 * rows + 0.1 / len(self._linear))

    def _iterated(self, steps: Steps, mix: Array) -> Steps:
        """Returns the best plan of repeated dynamic programs, each linearised at the last plan."""
        best, seen = np.zeros_like(steps), set()
        for _ in range(ROUNDS):
            planned = self._planned(steps, mix)
            mix = self._remixed(mix, planned)
            steps = self._repaired(planned)
            best = min(best, steps, key=self._error)
            state = steps.tobytes() + mix.tobytes()
            if state in seen:
                break
            seen.add(state)
        return best

    def _widths(self, steps: Steps) -> Widths:
        return self._options[self._rows, steps]

    def _error(self, steps: Steps) -> float:
        return float(self._weighted[self._rows, steps].sum())

    def _usage(self, steps: Steps) -> Array:
        """Returns the true cost as a share of each limit, `(limits,)`; over 1 breaks it."""
        widths, bounds = self._widths(steps)[None], self._budget.bounds
        return np.concatenate(
            [
                self._space.forms[name].values(widths)[0, own] / bounds[name].high
                for name, own in self._limiting.items()
            ]
        )

    def _changes(self, steps: Steps) -> Array:
        """Returns the exact cost change of each option of each group, the others held.

        The result is `(limits, groups, options)`, as shares of the bounds.
        """
        widths = self._widths(steps).astype(np.float64)
        own = np.einsum("rgg->rg", self._quadratic)
        slope = self._linear + self._quadratic @ widths - own * widths
        options = self._options.astype(np.float64)
        moved = options - widths[:, None]
        squares = options**2 - widths[:, None] ** 2
        return np.asarray(slope[:, :, None] * moved + own[:, :, None] * squares / 2)

    def _planned(self, steps: Steps, mix: Array) -> Steps:
        """Returns the best plan under costs linearised at `steps`, limits mixed by `mix`.

        Far from `steps` the linearised cost can be too low; `_repaired` sees to that.
        """
        changes = np.einsum("r,rgk->gk", mix, self._changes(steps))
        extra = changes - changes[:, :1]
        room = float(mix @ (1 - self._usage(steps)) - changes[:, 0].sum())
        # Rounded up, so that what fits the buckets fits the linearised budget.
        sizes = np.ceil(extra / max(room, 1e-12) * BUCKETS - 1e-9)
        return knapsack(np.minimum(sizes, BUCKETS + 1).astype(np.int64), self._weighted, BUCKETS)

    def _remixed(self, mix: Array, planned: Steps) -> Array:
        """Returns Lagrangian shares of the limits, moved towards those that ran over."""
        if len(mix) == 1:
            return mix
        usage = self._usage(planned)
        moved = mix * np.exp(4 * (usage - usage.mean()))
        return np.asarray(moved / moved.sum())

    def _repaired(self, steps: Steps) -> Steps:
        """Returns `steps` shrunk, cheapest error per cost first, until the true costs fit."""
        steps = steps.copy()
        usage = self._usage(steps)
        while usage.max() > 1:
            over = np.maximum(usage - 1, 0)
            saved = -np.einsum("r,rgk->gk", over, self._changes(steps))
            lost = self._weighted - self._weighted[self._rows, steps][:, None]
            smaller = np.arange(self._options.shape[1]) < steps[:, None]
            price = np.where(smaller & (saved > 0), lost / np.where(saved > 0, saved, 1), np.inf)
            # One step of the move of least price; the rest may turn out not to be needed.
            steps[np.argmin(price.min(axis=1))] -= 1
            usage = self._usage(steps)
        return steps

    def _searched(self, steps: Steps) -> Steps:
        """Returns a plan that no move of two groups improves, under the true costs."""
        better: Steps | None = steps
        while better is not None:
            steps = better
            better = self._best_move(steps)
        return steps

    def _best_move(self, steps: Steps) -> Steps | None:
        """Returns the plan of least error that moving one or two groups leads to, if better.

        The exact cost of moving g by a and h by b is the sum of both changes and a cross term.
        """
        reach = max(1, min(REACH, PAIRED_MOVES // len(steps)))
        moved = np.clip(steps[:, None] + np.arange(-reach, reach + 1), 0, self._count[:, None] - 1)
        rows = self._rows[:, None]
        shift = self._options[rows, moved] - self._widths(steps)[:, None]
        changes = self._changes(steps)[:, rows, moved]
        slack = 1 - self._usage(steps)
        gains = self._weighted[rows, moved] - self._weighted[self._rows, steps][:, None]
        totals = gains[:, :, None, None] + gains
        for r in range(len(slack)):
            cost = changes[r][:, :, None, None] + changes[r]
            cost += shift[:, :, None, None] * self._quadratic[r][:, None, :, None] * shift
            totals[cost > slack[r] + 1e-9] = np.inf
        # A group beside itself stands for moving it alone: its second move must be none.
        totals[self._rows, :, self._rows, :reach] = np.inf
        totals[self._rows, :, self._rows, reach + 1 :] = np.inf
        # Under this a gain is rounding, and the search could go in circles.
        least = -1e-12 * self._error(steps)
        while totals.min() < least:
            g, a, h, b = np.unravel_index(np.argmin(totals), totals.shape)
            move = steps.copy()
            move[h], move[g] = moved[h, b], moved[g, a]
            if self._usage(move).max() <= 1:
                return move
            totals[g, a, h, b] = np.inf
        return None


def _decreasing(curve: ErrorCurve) -> ErrorCurve:
    """Returns the curve without widths that are no better than a smaller one."""
    better = np.concatenate([[True], np.diff(np.minimum.accumulate(curve.errors)) < 0])
    return ErrorCurve(widths=curve.widths[better], errors=curve.errors[better])


def _padded(values: NDArray[Any], length: int, filler: float) -> NDArray[Any]:
    return np.pad(values, (0, length - len(values)), constant_values=filler)
