"""What is left of a space: listed where it is small, drawn where it is not."""

from itertools import product

import numpy as np

from evosearch.space.space import SearchSpace
from evosearch.strategies.untried import DRAWN, Untried
from tests.strategies.problems import budget_of, chain

SMALL, LARGE = chain([4, 6]), chain([64, 64, 64])


def fitting(space: SearchSpace, share: float) -> set[tuple[int, ...]]:
    """Returns the legal plans within a share of the MACs, one by one."""
    most = budget_of(space, macs=share).bounds["macs"].high
    plans = product(*(group.legal_widths() for group in space.groups))
    return {
        plan for plan in plans if space.cost_of_widths(np.array(plan, dtype=np.int64)).macs <= most
    }


def rows(plans: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(plan) for plan in plans.tolist()]


def test_plans_of_a_small_space_are_all_that_were_not_tried() -> None:
    budget = budget_of(SMALL, macs=(0.2, 0.6))
    untried, rng = Untried(SMALL, budget), np.random.default_rng(0)
    within, all_ = fitting(SMALL, 0.2), fitting(SMALL, 0.6)
    assert set() < within < all_
    found = rows(untried.plans(set(), budget.at(0.0), rng))
    assert sorted(found) == sorted(within)
    tried = {np.array(plan, dtype=np.int64).tobytes() for plan in within}
    assert sorted(rows(untried.plans(tried, budget.at(0.0), rng))) == sorted(all_ - within)
    tried |= {np.array(plan, dtype=np.int64).tobytes() for plan in all_}
    assert len(untried.plans(tried, budget.at(0.0), rng)) == 0


def test_rules_of_widths_hold() -> None:
    space = chain([8, 8], multiple_of=4)
    plans = Untried(space, budget_of(space, macs=1.0)).listed_plans
    assert plans is not None
    assert sorted(rows(plans)) == [(4, 4), (4, 8), (8, 4), (8, 8)]
    masks = Untried(chain([3, 3], multiple_of=2), budget_of(space, macs=1.0)).listed_masks
    assert masks is not None
    assert {tuple(mask.widths.values()) for mask in masks} == set(product((2, 3), repeat=2))
    assert len(masks) == len(set(masks)) == (3 + 1) ** 2


def test_plans_of_a_large_space_are_drawn_within_the_budget() -> None:
    budget = budget_of(LARGE, macs=(0.2, 0.6))
    untried = Untried(LARGE, budget)
    assert untried.listed_plans is None
    assert untried.listed_masks is None
    plans = untried.plans(set(), budget.at(0.0), np.random.default_rng(1))
    assert len(plans) == DRAWN
    assert LARGE.fits(plans, budget.at(0.0)).all()
    again = untried.plans(set(), budget.at(0.0), np.random.default_rng(1))
    np.testing.assert_array_equal(again, plans)
    left = untried.plans({plans[0].tobytes()}, budget.at(0.0), np.random.default_rng(1))
    np.testing.assert_array_equal(left, plans[[p.tobytes() != plans[0].tobytes() for p in plans]])
