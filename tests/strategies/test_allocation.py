"""Allocations against enumeration of all plans; budgets held by true costs."""

from itertools import product
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.errors import InfeasibleBudget
from evosearch.space.budget import Bound, Budget
from evosearch.space.space import SearchSpace
from evosearch.strategies.allocation import Allocator
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.strategies.two_step import ErrorCurve
from tests.strategies.problems import budget_of, chain


def random_curves(rng: np.random.Generator, space: SearchSpace) -> dict[str, ErrorCurve]:
    """Returns falling curves, half of them smooth and half ragged; the last error is 0."""
    curves = {}
    for group in space.groups:
        widths = np.array(group.legal_widths())
        widths = widths[np.unique(np.linspace(0, len(widths) - 1, 64).round().astype(int))]
        smooth = (1 - widths / group.size) ** rng.uniform(1, 4)
        ragged = np.append(np.sort(rng.random(len(widths) - 1) ** 2)[::-1], 0.0)
        errors = rng.uniform(0.1, 2) * (smooth if rng.random() < 0.5 else ragged)
        curves[group.name] = ErrorCurve(widths=widths, errors=errors)
    return curves


def error_of(space: SearchSpace, curves, weights, widths) -> float:
    return sum(
        weight * float(np.interp(width, curves[g.name].widths, curves[g.name].errors))
        for g, weight, width in zip(space.groups, weights, widths, strict=True)
    )


def least_error(space: SearchSpace, curves, weights, budget: Budget) -> float:
    """Returns the least error of all plans that fit, by enumeration."""
    own = [curves[g.name] for g in space.groups]
    plans = np.array(list(product(*(curve.widths for curve in own))))
    weighted = [w * curve.errors for w, curve in zip(weights, own, strict=True)]
    errors = np.array([sum(plan) for plan in product(*weighted)])
    return float(errors[space.fits(plans, budget)].min())


@pytest.mark.parametrize(
    "resources", [("macs",), ("params",), ("macs", "params"), ("memory",), ("memory", "macs")]
)
def test_within_one_percent_of_enumeration(resources) -> None:
    ratios = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = 2 * rng.integers(4, 15, rng.integers(3, 5))
        space = chain(sizes, multiple_of=int(rng.integers(2, 5)))
        curves, weights = random_curves(rng, space), np.exp(rng.normal(size=len(sizes)))
        budget = budget_of(space, **{name: rng.uniform(0.1, 0.9) for name in resources})
        widths = Allocator(space, curves).allocate(weights, budget)
        assert space.fits(widths[None], budget)[0]
        error = error_of(space, curves, weights, widths)
        least = least_error(space, curves, weights, budget)
        assert error >= least - 1e-12
        assert error <= 1.01 * least + 1e-12, seed
        ratios.append(error <= least + 1e-12)
    assert np.mean(ratios) >= 0.95  # nearly always the optimum itself


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 7), st.booleans())
def test_plans_are_legal_and_within_every_budget(
    seed: int, groups: int, multiple_of: int, both: bool
) -> None:
    rng = np.random.default_rng(seed)
    space = chain(rng.integers(3, 40, groups), multiple_of=multiple_of, min_keep=2)
    shares = {"macs": rng.uniform(0, 1)} | ({"params": rng.uniform(0, 1)} if both else {})
    budget = budget_of(space, **shares)
    allocator = Allocator(space, random_curves(rng, space))
    widths = allocator.allocate(np.exp(rng.normal(size=groups)), budget)
    assert space.fits(widths[None], budget)[0]
    for group, width in zip(space.groups, widths, strict=True):
        assert width in group.legal_widths()


def test_upper_end_of_a_range_counts() -> None:
    space = chain([16, 16, 16])
    curves = random_curves(np.random.default_rng(0), space)
    allocator = Allocator(space, curves)
    half = allocator.allocate(np.ones(3), budget_of(space, macs=0.5))
    ranged = allocator.allocate(np.ones(3), budget_of(space, macs=(0.2, 0.5)))
    np.testing.assert_array_equal(half, ranged)


def test_a_weight_moves_width_to_its_group() -> None:
    space = chain([32, 32, 32])
    curve = {
        g.name: ErrorCurve(widths=np.arange(1, 33), errors=(1 - np.arange(1, 33) / 32) ** 2)
        for g in space.groups
    }
    allocator, budget = Allocator(space, curve), budget_of(space, macs=0.4)
    widths = [allocator.allocate(np.array([w, 1.0, 1.0]), budget)[0] for w in (0.1, 1, 10)]
    assert widths[0] < widths[1] < widths[2]


def test_nothing_is_cut_where_everything_fits() -> None:
    space = chain([8, 9, 10], multiple_of=4)
    curves = random_curves(np.random.default_rng(0), space)
    widths = Allocator(space, curves).allocate(np.ones(3), budget_of(space, macs=1.0))
    np.testing.assert_array_equal(widths, space.full_widths)


def test_widths_that_gain_nothing_are_not_kept() -> None:
    space = chain([8, 8, 8])
    flat = ErrorCurve(widths=np.arange(1, 9), errors=np.array([3.0, 1, 0, 0, 0, 0, 0, 0]))
    allocator = Allocator(space, {g.name: flat for g in space.groups})
    widths = allocator.allocate(np.ones(3), budget_of(space, macs=1.0))
    assert widths.tolist() == [3, 3, 3]


def test_a_tight_budget_leaves_the_smallest_plan() -> None:
    space = chain([8, 12, 16], min_keep=3)
    budget = Budget.of(macs=Bound(low=space.smallest_cost.macs, high=space.smallest_cost.macs))
    curves = random_curves(np.random.default_rng(0), space)
    np.testing.assert_array_equal(Allocator(space, curves).allocate(np.ones(3), budget), [3, 3, 3])


def test_an_unreachable_budget_is_refused() -> None:
    space = chain([8, 12, 16], min_keep=3)
    budget = Budget.of(macs=Bound(low=1, high=space.smallest_cost.macs - 1))
    allocator = Allocator(space, random_curves(np.random.default_rng(0), space))
    with pytest.raises(InfeasibleBudget, match="out of reach"):
        allocator.allocate(np.ones(3), budget)


@pytest.mark.parametrize("resources", [("macs",), ("macs", "params"), ("memory", "size")])
def test_many_groups_beat_the_uniform_plan_quickly(resources) -> None:
    rng = np.random.default_rng(0)
    space = chain(rng.choice([64, 128, 256], 40))
    curves, weights = random_curves(rng, space), np.exp(rng.normal(size=40))
    budget = budget_of(space, **dict.fromkeys(resources, 0.5))
    allocator = Allocator(space, curves)
    began = perf_counter()
    widths = allocator.allocate(weights, budget)
    assert perf_counter() - began < 3  # about 0.1 s; the bound is for a loaded machine
    assert space.fits(widths[None], budget)[0]
    uniform = error_of(space, curves, weights, uniform_widths(space, budget))
    assert error_of(space, curves, weights, widths) < 0.5 * uniform
    used = max(space.costs(widths[None])[name][0] / budget.bounds[name].high for name in resources)
    assert used > 0.99
