"""A palette of plans that elastic weights are trained for: the smallest, and drawn ones."""

import numpy as np

from evosearch.space.budget import Budget
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies.allocation import Allocator
from evosearch.strategies.two_step import TwoStep
from evosearch.strategies.two_step_plan import STEEPNESS, steep


def drawn_palette(
    space: SearchSpace,
    budget: Budget,
    channels: TwoStep,
    *,
    drawn: int,
    spread: float,
    rng: np.random.Generator,
) -> tuple[Mask, ...]:
    """Returns plans over a range of budgets, the smallest first.

    The smallest is the plan of least two-step error within the lower end of the budget. Each
    other one is the plan of least error at its own place in the range, evenly spread over it,
    with every group's error times a factor of its own: plans that a search may come to, which
    uniform shares of all groups are not. A group's channels leave in the two-step removal order,
    so that a narrower width has a part of a wider one's.

    Args:
        space: what is cut.
        budget: a range, or one size, which then all plans have.
        channels: two-step errors of the space's channels.
        drawn: plans beside the smallest; two that come out equal are one.
        spread: standard deviation of the factors' logarithm.
        rng: draws the factors.

    Raises:
        InfeasibleBudget: no legal plan fits the lower end.
    """
    curves = {name: steep(channels.curve(name)) for name in space.sizes}
    allocator, even = Allocator(space, curves), np.ones(len(space.groups))
    widths = [allocator.allocate(even, budget.at(0.0))]
    for position in (np.arange(drawn) + 0.5) / max(1, drawn):
        factors = np.exp(spread * rng.normal(size=len(even)))
        widths.append(allocator.allocate(factors**STEEPNESS, budget.at(float(position))))
    return tuple(dict.fromkeys(channels.nested_mask(own) for own in widths))
