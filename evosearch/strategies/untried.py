"""The plans and masks that a search has not tried: all of a small space, or some drawn."""

from collections.abc import Set
from functools import cached_property
from typing import final

import numpy as np

from evosearch.space.budget import Budget
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace, Widths
from evosearch.strategies.fixed_plans import random_widths

LISTED = 2**14
"""Plans, or masks, of a space that is gone through from end to end."""
DRAWN = 64
"""Plans that are drawn from a larger space in search of new ones."""


@final
class Untried:
    """The legal plans and masks of a space within a budget, without those that were tried."""

    def __init__(self, space: SearchSpace, budget: Budget) -> None:
        """Takes the space, and the budget whose upper end all keep."""
        self._space, self._budget = space, budget

    @cached_property
    def listed_plans(self) -> Widths | None:
        """All plans, `(plans, groups)`; None where there may be more than `LISTED`."""
        legal = [np.array(group.legal_widths(), dtype=np.int64) for group in self._space.groups]
        if np.prod([float(len(own)) for own in legal]) > LISTED:
            return None
        plans = np.stack(np.meshgrid(*legal, indexing="ij"), axis=-1).reshape(-1, len(legal))
        return np.asarray(plans[self._space.fits(plans, self._budget)])

    @cached_property
    def listed_masks(self) -> tuple[Mask, ...] | None:
        """All masks; None where the space has too many channels for that."""
        sizes = self._space.sizes
        channels = sum(sizes.values())
        if 2**channels > LISTED:
            return None
        rows = (np.arange(2**channels)[:, None] >> np.arange(channels) & 1).astype(np.bool_)
        groups = np.split(rows, np.cumsum(list(sizes.values()))[:-1], axis=1)
        widths = np.stack([own.sum(axis=1) for own in groups], axis=1)
        legal = np.all(
            [
                np.isin(own, group.legal_widths())
                for own, group in zip(widths.T, self._space.groups, strict=True)
            ],
            axis=0,
        )
        fitting = np.flatnonzero(legal & self._space.fits(widths, self._budget))
        return tuple(
            Mask({name: own[row] for name, own in zip(sizes, groups, strict=True)})
            for row in fitting
        )

    def plans(self, tried: Set[bytes], budget: Budget, rng: np.random.Generator) -> Widths:
        """Returns plans that were not tried, `(plans, groups)`.

        Args:
            tried: plans, each as the bytes of its int64 widths.
            budget: a position of the budget; plans within it go first, and where none of them is
                left, all plans within the whole budget that are left come back.
            rng: draws where plans are not listed.

        Returns:
            None at all where all of a small space were tried; of a larger one, that is bad luck.
        """
        plans = self.listed_plans
        if plans is None:
            plans = np.stack([random_widths(self._space, budget, rng) for _ in range(DRAWN)])
        new = plans[[plan.tobytes() not in tried for plan in plans]]
        within = new[self._space.fits(new, budget)] if len(new) else new
        return within if len(within) else new
