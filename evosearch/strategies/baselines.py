"""Plans that need no search: what a searched plan has to beat."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evosearch.cost import Budget
from evosearch.mask import Mask
from evosearch.space import SearchSpace, Widths


def uniform_widths(space: SearchSpace, budget: Budget) -> Widths:
    """Returns the widths of the largest common keep ratio that fits.

    Every group gets its largest legal width that is at most the ratio times its size, or its
    smallest legal width where there is none.

    Args:
        space: what is searched.
        budget: its upper end is met.

    Returns:
        Legal widths, `(groups,)`.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    legal = [np.array(group.legal_widths(), dtype=np.int64) for group in space.groups]
    ratios = [widths / group.size for widths, group in zip(legal, space.groups, strict=True)]

    def at(ratio: float) -> Widths:
        steps = [max(0, int(np.searchsorted(own, ratio, side="right")) - 1) for own in ratios]
        return np.array([w[s] for w, s in zip(legal, steps, strict=True)], dtype=np.int64)

    # Widths change only at these ratios, and costs grow with them: bisect for the last that fits.
    breaks = np.unique(np.concatenate(ratios))
    fitting, over = 0, len(breaks)
    while over - fitting > 1:
        middle = (fitting + over) // 2
        if space.fits(at(breaks[middle])[None], budget)[0]:
            fitting = middle
        else:
            over = middle
    # The smallest ratio need not fit: `fit_widths` then raises, or changes nothing.
    return space.fit_widths(at(breaks[fitting]), budget)


def uniform_mask(
    space: SearchSpace, budget: Budget, scores: Mapping[str, NDArray[np.float64]]
) -> Mask:
    """Returns the mask of `uniform_widths` that drops the lowest-scored channels of each group.

    Args:
        space: what is searched.
        budget: its upper end is met.
        scores: group name -> `(channels,)`, higher is kept, as in `Knowledge.scores`.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    return space.top_channels(uniform_widths(space, budget), scores)
