"""The plans that elastic weights are trained for are nested, within their budgets, and apart."""

from itertools import combinations

import numpy as np
import pytest

from evosearch.space.budget import BudgetRequest
from evosearch.space.mask import Mask
from evosearch.strategies.palette import drawn_palette
from evosearch.strategies.two_step import TwoStep
from evosearch.strategies.two_step_plan import two_step_plan
from tests.toys import toy_knowledge, toy_space

SPACE, GRAM = toy_space(), toy_knowledge().gram


def palette(flops: str, *, drawn: int = 8, spread: float = 1.0, seed: int = 0) -> tuple[Mask, ...]:
    return drawn_palette(
        SPACE,
        BudgetRequest.of(flops=flops).resolve(SPACE.base_cost),
        TwoStep(SPACE, GRAM),
        drawn=drawn,
        spread=spread,
        rng=np.random.default_rng(seed),
    )


def test_the_first_is_the_plan_of_the_lower_end() -> None:
    low = BudgetRequest.of(flops="30%").resolve(SPACE.base_cost)
    first = palette("30%..80%")[0]
    assert list(SPACE.widths(first)) == list(SPACE.widths(two_step_plan(SPACE, low, GRAM)))


def test_drawn_plans_spread_over_the_range_and_keep_it() -> None:
    budget = BudgetRequest.of(flops="30%..80%").resolve(SPACE.base_cost)
    masks = palette("30%..80%", drawn=4, spread=0.0)
    macs = [SPACE.cost(mask).macs for mask in masks]
    for cost, position in zip(macs, (0, 1 / 8, 3 / 8, 5 / 8, 7 / 8), strict=True):
        assert cost <= budget.at(position).bounds["macs"].high
    assert macs == sorted(macs)
    assert len(set(macs)) == 5


@pytest.mark.parametrize("flops", ["30%..80%", "50%"])
def test_of_two_plans_the_narrower_group_is_a_part_of_the_wider_one(flops: str) -> None:
    masks = palette(flops, spread=2.0)
    assert len(set(masks)) == len(masks) > 3
    for one, other in combinations(masks, 2):
        for name in SPACE.sizes:
            small, large = sorted((one[name], other[name]), key=np.sum)
            assert not (small & ~large).any()


def test_equal_draws_give_equal_plans_and_others_others() -> None:
    assert palette("40%", seed=1) == palette("40%", seed=1)
    assert palette("40%", seed=1) != palette("40%", seed=2)


def test_without_a_spread_one_size_has_one_plan() -> None:
    assert len(palette("40%", spread=0.0)) == 1
