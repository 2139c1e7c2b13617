"""From weights of groups to widths: the plan of least weighted error within a budget.

The error of a plan is a sum over groups, so with costs linearised at some plan (each group's
cost with the others held) the best plan is a knapsack, solved by a dynamic program over widths
(as SPDY does, Frantar and Alistarh 2022, arXiv 2201.13096). Costs are products of widths, so
linearise, solve, repair and repeat; a local search with the true costs ends it.
"""

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.cost import Bound, Budget
from evosearch.knowledge import Array
from evosearch.space import SearchSpace, Widths
from evosearch.strategies.baselines import uniform_widths
from evosearch.strategies.two_step import ErrorCurve

ROUNDS = 6
"""Most times that costs are linearised."""
BUCKETS = 1000
"""Equal parts of the budget that the dynamic program counts in."""
REACH = 16
"""Options up or down that one group moves at once in the local search, at most."""
PAIRED_MOVES = 128
"""The local search looks at about `(2 * this)^2` pairs of moves at a time."""

Steps = NDArray[np.int64]


def allocate(
    space: SearchSpace, curves: Mapping[str, ErrorCurve], weights: Array, budget: Budget
) -> Widths:
    """Returns the widths of least weighted error within a budget; see `Allocator`."""
    return Allocator(space, curves).allocate(weights, budget)


@final
class Allocator:
    """Allocates one space's budgets, many times over, from the same error curves."""

    def __init__(self, space: SearchSpace, curves: Mapping[str, ErrorCurve]) -> None:
        """Takes an error curve for every group; its widths are the ones chosen from.

        The smallest width of a curve must be the group's smallest legal one.
        """
        self._space = space
        chosen = [_decreasing(curves[group.name]) for group in space.groups]
        self._count = np.array([len(curve.widths) for curve in chosen])
        options = int(self._count.max())
        # Short rows repeat their last width with an infinite error, so that none is chosen.
        self._options = np.stack([_padded(curve.widths, options) for curve in chosen])
        self._errors = np.full(self._options.shape, np.inf)
        for row, curve in zip(self._errors, chosen, strict=True):
            row[: len(curve.errors)] = curve.errors
        self._linear, self._quadratic = _coefficients(space)

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
        top = {name: Bound(low=bound.high, high=bound.high) for name, bound in budget.bounds.items()}
        solver = _Solver(self, np.asarray(weights, dtype=np.float64), Budget(**top))
        return solver.solve()


@final
class _Solver:
    """One allocation. A plan is one option (an index into the curve) per group: `steps`."""

    def __init__(self, parts: Allocator, weights: Array, budget: Budget) -> None:
        self._space, self._budget = parts._space, budget
        self._options, self._count = parts._options, parts._count
        self._weighted = weights[:, None] * parts._errors
        self._rows = np.arange(len(weights))
        names = list(budget.bounds)
        # Costs as shares of their bounds: `(resources, groups)` and `(resources, groups, groups)`.
        bounds = np.array([bound.high for bound in budget.bounds.values()], dtype=np.float64)
        self._linear = np.stack([parts._linear[n] for n in names]) / bounds[:, None]
        self._quadratic = np.stack([parts._quadratic[n] for n in names]) / bounds[:, None, None]

    def solve(self) -> Widths:
        uniform = uniform_widths(self._space, self._budget)
        fitting = (self._options <= uniform[:, None]).sum(axis=1) - 1
        best = steps = np.asarray(np.minimum(fitting, self._count - 1))
        seen = set()
        mix = np.full(len(self._linear), 1 / len(self._linear))
        for _ in range(ROUNDS):
            planned = self._knapsack(steps, mix)
            mix = self._remixed(mix, planned)
            steps = self._searched(self._repaired(planned))
            if self._error(steps) < self._error(best):
                best = steps
            key = steps.tobytes() + mix.tobytes()
            if key in seen:
                break
            seen.add(key)
        return self._widths(best)

    def _widths(self, steps: Steps) -> Widths:
        return self._options[self._rows, steps]

    def _error(self, steps: Steps) -> float:
        return float(self._weighted[self._rows, steps].sum())

    def _usage(self, steps: Steps) -> Array:
        """Returns the true cost as a share of each bound, `(resources,)`; over 1 breaks it."""
        costs = self._space.costs(self._widths(steps)[None])
        return np.array(
            [costs[name][0] / bound.high for name, bound in self._budget.bounds.items()]
        )

    def _changes(self, steps: Steps) -> Array:
        """Returns the exact cost change of each option of each group, the others held.

        The result is `(resources, groups, options)`, as shares of the bounds.
        """
        widths = self._widths(steps).astype(np.float64)
        own = np.einsum("rgg->rg", self._quadratic)
        slope = self._linear + self._quadratic @ widths - own * widths
        options = self._options.astype(np.float64)
        moved = options - widths[:, None]
        squares = options**2 - widths[:, None] ** 2
        return np.asarray(slope[:, :, None] * moved + own[:, :, None] * squares / 2)

    # Dynamic program

    def _knapsack(self, steps: Steps, mix: Array) -> Steps:
        """Returns the best plan under costs linearised at `steps`, resources mixed by `mix`.

        The linearised cost of a larger plan than `steps` is too low; `_repaired` sees to that.
        """
        changes = np.einsum("r,rgk->gk", mix, self._changes(steps))
        extra = changes - changes[:, :1]
        room = float(mix @ (1 - self._usage(steps)) - changes[:, 0].sum())
        # Rounded up, so that what fits the buckets fits the linearised budget.
        buckets = np.ceil(extra / max(room, 1e-12) * BUCKETS - 1e-9)
        sizes = np.minimum(buckets, BUCKETS + 1).astype(np.int64)
        capacities = np.arange(BUCKETS + 1)
        least = np.zeros(BUCKETS + 1)
        choices = []
        for group in self._rows:
            count = self._count[group]
            # `least` behind a wall of infinities: an option over the capacity is never best.
            walled = np.concatenate([np.full(BUCKETS + 1, np.inf), least])
            reached = capacities + (BUCKETS + 1 - sizes[group, :count])[:, None]
            totals = walled[reached] + self._weighted[group, :count, None]
            choices.append(np.argmin(totals, axis=0))
            least = totals[choices[-1], capacities]
        planned = np.zeros_like(steps)
        capacity = BUCKETS
        for group in self._rows[::-1]:
            planned[group] = choices[group][capacity]
            capacity -= sizes[group, planned[group]]
        return planned

    def _remixed(self, mix: Array, planned: Steps) -> Array:
        """Returns Lagrangian shares of the resources, moved towards those that ran over."""
        if len(mix) == 1:
            return mix
        usage = self._usage(planned)
        moved = mix * np.exp(4 * (usage - usage.mean()))
        return np.asarray(moved / moved.sum())

    # True costs

    def _repaired(self, steps: Steps) -> Steps:
        """Returns `steps` shrunk, cheapest error per cost first, until the true costs fit."""
        steps = steps.copy()
        while (usage := self._usage(steps)).max() > 1:
            over = np.maximum(usage - 1, 0)
            saved = -np.einsum("r,rgk->gk", over, self._changes(steps))
            lost = self._weighted - self._weighted[self._rows, steps][:, None]
            smaller = np.arange(self._options.shape[1]) < steps[:, None]
            price = np.where(smaller & (saved > 0), lost / np.where(saved > 0, saved, 1), np.inf)
            # The step of least price, but no more of it than is needed.
            group = int(np.argmin(price.min(axis=1)))
            steps[group] -= 1
        return steps

    def _searched(self, steps: Steps) -> Steps:
        """Returns a plan that no move of two groups improves, under the true costs."""
        while (move := self._best_move(steps)) is not None:
            steps = move
        return steps

    def _best_move(self, steps: Steps) -> Steps | None:
        """Returns the plan of least error that moving one or two groups leads to, if any is better.

        The exact cost of moving g by a and h by b is the sum of both changes and a cross term.
        """
        reach = max(1, min(REACH, PAIRED_MOVES // len(steps)))
        moved = np.clip(
            steps[:, None] + np.arange(-reach, reach + 1), 0, self._count[:, None] - 1
        )
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
        totals[self._rows, :, self._rows] = np.inf
        # Under this a gain is rounding, and the search could go in circles.
        least = -1e-12 * self._error(steps)
        while totals.flat[best := int(np.argmin(totals))] < least:
            g, a, h, b = np.unravel_index(best, totals.shape)
            move = steps.copy()
            move[g], move[h] = moved[g, a], moved[h, b]
            if self._usage(move).max() <= 1:
                return move
            totals.flat[best] = np.inf
        return None


def _decreasing(curve: ErrorCurve) -> ErrorCurve:
    """Returns the curve without widths that are no better than a smaller one."""
    better = np.concatenate([[True], np.diff(np.minimum.accumulate(curve.errors)) < 0])
    return ErrorCurve(widths=curve.widths[better], errors=curve.errors[better])


def _padded(widths: Widths, length: int) -> Widths:
    return np.concatenate([widths, np.full(length - len(widths), widths[-1])])


def _coefficients(space: SearchSpace) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns each resource's cost as `constant + linear @ w + w @ quadratic @ w / 2`.

    Costs are polynomials of degree two, so finite differences at unit widths are exact.
    """
    groups = len(space.groups)
    unit = np.eye(groups, dtype=np.int64)
    left, right = np.triu_indices(groups)
    zero = space.costs(np.zeros((1, groups), dtype=np.int64))
    one, two = space.costs(unit), space.costs(unit[left] + unit[right])
    linear, quadratic = {}, {}
    for name in zero:
        second = two[name] - one[name][left] - one[name][right] + zero[name]
        matrix = np.zeros((groups, groups))
        matrix[left, right] = matrix[right, left] = second
        quadratic[name] = matrix
        # f(1) - f(0) = linear + quadratic / 2 on the diagonal.
        linear[name] = one[name] - zero[name] - np.diagonal(matrix) / 2
    return linear, quadratic
