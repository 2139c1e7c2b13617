"""The plan of least two-step error within a budget: one allocation, without a probe or a trial."""

from collections.abc import Mapping

import numpy as np

from evosearch.space.budget import Budget
from evosearch.space.knowledge import Array
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies.allocation import Allocator
from evosearch.strategies.two_step import ErrorCurve, TwoStep

STEEPNESS = 4
"""The loss rises much faster than the layers' errors: about as this power of them."""


def two_step_plan(
    space: SearchSpace, budget: Budget, gram: Mapping[tuple[str, str], Array]
) -> Mask:
    """Returns the widths of least total error found in a budget, with the two-step channels.

    A group counts by its error to the power `STEEPNESS`, and all groups alike.

    Args:
        space: what is cut.
        budget: its upper end is met.
        gram: of `Knowledge`.

    Raises:
        InfeasibleBudget: no legal plan fits.
        InputError: a group has no Gram matrix.
    """
    channels = TwoStep(space, gram)
    curves = {name: steep(channels.curve(name)) for name in space.sizes}
    widths = Allocator(space, curves).allocate(np.ones(len(space.groups)), budget)
    return channels.mask(widths)


def steep(curve: ErrorCurve) -> ErrorCurve:
    """Returns a two-step curve to the power that stands for a loss."""
    return ErrorCurve(widths=curve.widths, errors=curve.errors**STEEPNESS)
