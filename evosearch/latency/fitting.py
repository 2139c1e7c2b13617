"""The fit of latency: a form in the widths, from timings of whole networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from evosearch.space.costform import CostTerm, LatencyTerm, Monomial
from evosearch.space.space import SearchSpace, Widths

OVERHEAD = "overhead"
TIMED_COSTS = ("macs", "activations")
"""The costs of a layer that take time: its products, and moving its outputs."""
BASE_WEIGHT = 5.0
"""The base network, which shares refer to, counts as so many networks."""


@dataclass(frozen=True, kw_only=True)
class _Column:
    """What a coefficient multiplies: a cost of all modules of one kind."""

    kind: str
    resource: str


def fit_latency(
    space: SearchSpace,
    kinds: Mapping[str, str],
    widths: Widths,
    ratios: NDArray[np.float64],
    base_picoseconds: int,
) -> tuple[LatencyTerm, ...]:
    """Fits the time of a network: an overhead, and for every kind of layer its MACs and outputs.

    The time of a layer is that of its products and that of moving its outputs, through
    normalization and activation too; layers of one kernel on maps of one size share both rates.
    Nonnegative least squares of relative errors. Whole networks are timed, not layers: caches,
    allocation and what a runtime fuses are in the rates.

    Args:
        space: its exact costs are what the time is made of.
        kinds: module -> kind of layer.
        widths: of the networks that were timed, `(networks, groups)`.
        ratios: their times as shares of the base network's, `(networks,)`.
        base_picoseconds: the base network's.
    """
    terms = [term for term in space.terms if term.name in kinds]
    columns = [
        _Column(kind=kind, resource=resource)
        for kind in sorted(set(kinds.values()))
        for resource in TIMED_COSTS
    ]
    rows = np.vstack([widths, space.full_widths])
    features = np.array(
        [
            _features(terms, kinds, columns, dict(zip(space.sizes, row, strict=True)))
            for row in rows
        ]
    )
    features[:, 1:] *= np.ptp(features[:, 1:], axis=0) > 0  # what never changes is overhead
    times = np.append(ratios, 1.0) * base_picoseconds
    weights = np.append(np.ones(len(ratios)), np.sqrt(BASE_WEIGHT)) / times
    scale = np.maximum(features.max(axis=0), 1.0)
    solved, _ = nnls(features / scale * weights[:, None], weights * times)
    rates = solved / scale
    overhead = LatencyTerm(name=OVERHEAD, picoseconds=(Monomial(ceil(rates[0])),))
    by_column = dict(zip(columns, rates[1:].tolist(), strict=True))
    return overhead, *(_term(term, kinds[term.name], by_column) for term in terms)


def predict(terms: Sequence[LatencyTerm], space: SearchSpace, widths: Widths) -> NDArray[np.int64]:
    """Returns the predicted picoseconds of networks, `(networks,)`."""
    named = [dict(zip(space.sizes, row, strict=True)) for row in widths]
    return np.array([sum(term.evaluate(row) for term in terms) for row in named], dtype=np.int64)


def _features(
    terms: Sequence[CostTerm],
    kinds: Mapping[str, str],
    columns: Sequence[_Column],
    widths: Mapping[str, int],
) -> list[float]:
    totals = dict.fromkeys(columns, 0.0)
    for term in terms:
        cost = term.evaluate(widths)
        for resource in TIMED_COSTS:
            totals[_Column(kind=kinds[term.name], resource=resource)] += getattr(cost, resource)
    return [1.0, *totals.values()]


def _term(term: CostTerm, kind: str, rates: Mapping[_Column, float]) -> LatencyTerm:
    picoseconds: list[Monomial] = []
    for resource in TIMED_COSTS:
        rate = rates[_Column(kind=kind, resource=resource)]
        if rate > 0:
            picoseconds += [
                Monomial(ceil(rate * monomial.coefficient), monomial.groups)
                for monomial in getattr(term, resource)
            ]
    return LatencyTerm(name=term.name, picoseconds=tuple(picoseconds))
