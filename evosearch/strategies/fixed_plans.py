"""Functions from a budget to a plan, without a search: the largest of a family that fits.

A family of plans grows with one scalar; costs grow with the widths, so a bisection finds the last
that fits the budget. The strategies that propose these plans are in `baselines`.

==================  ===========================================================================
`uniform_mask`      the same keep ratio in all groups
`triangular_mask`   a rate that rises from the first group to the last
`global_mask`       one threshold on importance for all groups, relative to each group's mean
`relative_mask`     likewise, relative to each group's largest
`random_mask`       random widths, scaled together (`random_widths`); random channels
==================  ===========================================================================
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evosearch.space.budget import Budget
from evosearch.space.knowledge import Array, ImportanceScores
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace, Widths


def uniform_widths(space: SearchSpace, budget: Budget) -> Widths:
    """Returns the widths of the largest common keep ratio that fits, to a step of one group.

    Every group gets its largest legal width that is at most the ratio times its size, or its
    smallest legal width where there is none. Groups that reach a width at the same ratio do so
    one after the other, from the first to the last: together they may be a large step.

    Args:
        space: what is searched.
        budget: its upper end is met.

    Returns:
        Legal widths, `(groups,)`.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    ratios = _keep_ratios(space)
    numbers = np.repeat(np.arange(len(ratios)), [len(own) for own in ratios])
    order = np.lexsort((numbers, np.concatenate(ratios)))
    return _largest(space, budget, _places(order, ratios))


def uniform_mask(space: SearchSpace, budget: Budget, scores: ImportanceScores) -> Mask:
    """Returns the mask of `uniform_widths` that drops the lowest-scored channels of each group.

    This is what the retraining-free methods (Ashouri et al. 2018, arXiv 1811.04199) call flat.

    Args:
        space: what is searched.
        budget: its upper end is met.
        scores: group name -> `(channels,)`.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    return space.top_channels(uniform_widths(space, budget), scores)


def triangular_mask(space: SearchSpace, budget: Budget, scores: ImportanceScores) -> Mask:
    """Returns the mask whose rates rise linearly from the first group to the last.

    After the profile "triangular" of Ashouri et al. 2018 (arXiv 1811.04199). Its end points could
    not be read there, so these are ours: the first group's rate (share of channels dropped) is 0
    and the last one's as low as the budget allows; where even 1 is too low, it stays 1 and the
    first one's rises instead. Widths come from rates as in `uniform_widths`, channels from scores.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    places = np.linspace(0, 1, len(space.groups))
    levels = []
    for place, ratios in zip(places, _keep_ratios(space), strict=True):
        rates = 1 - ratios
        # With severity s the ends are max(0, s - 1) and min(1, s). A rate is kept up to this s:
        flat = np.divide(rates, place, out=np.ones_like(rates), where=rates < place)
        steep = np.divide(rates - place, 1 - place, out=np.zeros_like(rates), where=rates > place)
        # Rounded, so that groups that reach a width together do so in floating point too.
        levels.append(-np.round(flat + steep, 12))
    return space.top_channels(_largest(space, budget, levels), scores)


def global_mask(space: SearchSpace, budget: Budget, scores: ImportanceScores) -> Mask:
    """Returns the mask that drops the lowest of all scores until the budget holds.

    After the one global threshold of Salama et al. 2018 (pruning at a glance, arXiv 1912.00200),
    on scores that compare between groups, as in `Knowledge.comparable`. Channels go one by one,
    never below a group's smallest legal width; where widths have a `multiple_of`, those between
    two legal widths go together, by their mean. Of equal scores, those of the group with the
    highest keep ratio go first. So the mask of a smaller budget is a subset of that of a larger
    one, and what went last cannot come back.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    return _ranked_mask(space, budget, scores)


def relative_mask(space: SearchSpace, budget: Budget, scores: ImportanceScores) -> Mask:
    """Returns the mask that drops channels that score under q times the best of their group.

    After the profile "relative" of Ashouri et al. 2018 (arXiv 1811.04199), a percentile per layer
    whose definition could not be read there. The same percentile of every group would be
    `uniform_mask`, and one of all normalised scores `global_mask`; so here, which is ours, q is a
    share of each group's largest score, and the lowest that the budget allows. Apart from that
    reference it works as `global_mask`: an even group keeps more, and one with few outstanding
    channels fewer, than there.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    shares = {name: own / (np.abs(own).max() or 1.0) for name, own in scores.items()}
    return _ranked_mask(space, budget, shares)


def random_mask(space: SearchSpace, budget: Budget, rng: np.random.Generator) -> Mask:
    """Returns random channels at random widths that use the budget; see `random_widths`.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    widths = random_widths(space, budget, rng)
    return space.top_channels(widths, {g.name: rng.random(g.size) for g in space.groups})


def random_widths(space: SearchSpace, budget: Budget, rng: np.random.Generator) -> Widths:
    """Returns random widths that use the budget, `(groups,)`.

    The groups' keep ratios are drawn from (0, 1] and multiplied by the largest common factor that
    fits; none goes over 1. (`SearchSpace.sample` scales down only, and often stays far below.)

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    drawn = 1 - rng.random(len(space.groups))
    return scaled_widths(space, budget, drawn)


def scaled_widths(space: SearchSpace, budget: Budget, ratios: Array) -> Widths:
    """Returns the widths of keep ratios times the largest common factor that fits; none over 1.

    Args:
        space: what is searched.
        budget: its upper end is met.
        ratios: positive, `(groups,)`.

    Returns:
        Legal widths, `(groups,)`.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    pairs = zip(_keep_ratios(space), ratios, strict=True)
    return _largest(space, budget, [legal / own for legal, own in pairs])


def _keep_ratios(space: SearchSpace) -> list[Array]:
    """Returns each group's legal widths as shares of its size, `(widths,)`, ascending."""
    return [np.array(group.legal_widths()) / group.size for group in space.groups]


def _ranked_mask(space: SearchSpace, budget: Budget, scores: ImportanceScores) -> Mask:
    """Returns the mask that drops the lowest of comparable scores; see `global_mask`."""
    heights = []
    for group in space.groups:
        ends = np.array(group.legal_widths())
        starts = np.concatenate([[0], ends[:-1]])
        ordered = np.sort(scores[group.name])[::-1]
        means = np.add.reduceat(ordered, starts) / (ends - starts)
        # Means of equal scores may rise by a rounding error: wider must never come first.
        heights.append(np.concatenate([[np.inf], np.minimum.accumulate(means[1:])]))
    ratios = _keep_ratios(space)
    order = np.lexsort((np.concatenate(ratios), -np.concatenate(heights)))
    return space.top_channels(_largest(space, budget, _places(order, ratios)), scores)


def _places(order: NDArray[np.int64], ratios: Sequence[Array]) -> list[Array]:
    """Returns levels that are places in an order of all widths: equal ones come one by one.

    Args:
        order: of the widths of all groups, one group after the other.
        ratios: something of each of the groups' widths.
    """
    places = np.argsort(order).astype(np.float64)
    return np.split(places, np.cumsum([len(own) for own in ratios])[:-1])


def _largest(space: SearchSpace, budget: Budget, levels: Sequence[Array]) -> Widths:
    """Returns the widths at the highest level that fits.

    Args:
        space: what is searched.
        budget: its upper end is met.
        levels: per group the level from which on it has each of its legal widths, ascending; the
            smallest width it has at every level.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    legal = [np.array(group.legal_widths(), dtype=np.int64) for group in space.groups]

    def at(level: float) -> Widths:
        steps = [max(0, int(np.searchsorted(own, level, side="right")) - 1) for own in levels]
        return np.array([w[s] for w, s in zip(legal, steps, strict=True)], dtype=np.int64)

    # Widths change only at these levels, and costs grow with them: bisect for the last that fits.
    breaks = np.unique(np.concatenate(levels))
    fitting, over = 0, len(breaks)
    while over - fitting > 1:
        middle = (fitting + over) // 2
        if space.fits(at(breaks[middle])[None], budget)[0]:
            fitting = middle
        else:
            over = middle
    # The lowest level need not fit: `fit_widths` then raises, or changes nothing.
    return space.fit_widths(at(breaks[fitting]), budget)
