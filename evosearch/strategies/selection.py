"""The survival selection of NSGA-II, over points to minimise, through DEAP."""

from typing import final

import numpy as np
from deap import base, tools
from numpy.typing import NDArray

from evosearch.space.knowledge import Array

Indices = NDArray[np.int64]


class _Fitness(base.Fitness):  # type: ignore[misc]  # deap is untyped
    def __init__(self, point: list[float]) -> None:
        # Set before DEAP looks at it; all objectives are minimised.
        self.weights = (-1.0,) * len(point)
        super().__init__(point)


@final
class _Row:
    """An individual as DEAP sees it: only its fitness, and which one it is."""

    __slots__ = ("fitness", "index")

    def __init__(self, index: int, point: list[float]) -> None:
        self.index, self.fitness = index, _Fitness(point)


def nsga2(points: Array, count: int, violations: Array | None = None) -> Indices:
    """Returns the rows that survive, front by front.

    Non-dominated sorting and crowding distance of NSGA-II (Deb et al. 2002). Feasible rows come
    first; of equal points the first row counts and the others come after all distinct ones;
    infeasible rows come last, least violation first.

    Args:
        points: to minimise, finite, `(rows, objectives)`, two objectives or more.
        count: number of survivors; fewer rows all survive.
        violations: by how much each row breaks a limit, 0 where it is feasible, `(rows,)`.

    Raises:
        ValueError: a point is not finite: DEAP would rank it at random.
    """
    points = np.asarray(points, dtype=np.float64)
    if not np.isfinite(points).all():
        raise ValueError("NSGA-II needs finite points")
    broken = np.zeros(len(points)) if violations is None else violations
    feasible = np.flatnonzero(broken <= 0)
    _, firsts = np.unique(points[feasible], axis=0, return_index=True)
    distinct = feasible[np.sort(firsts)]
    rows = [_Row(i, points[i].tolist()) for i in distinct.tolist()]
    if rows:
        rows = tools.selNSGA2(rows, min(count, len(rows)), nd="log")
    best = np.array([row.index for row in rows], dtype=np.int64)
    repeats = np.setdiff1d(feasible, distinct)
    infeasible = np.flatnonzero(broken > 0)
    worst = infeasible[np.argsort(broken[infeasible], kind="stable")]
    return np.concatenate([best, repeats, worst])[:count]
