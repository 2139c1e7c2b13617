"""Intervals of shares: Wilson's of one share, and Tango's bound of a difference between two.

Both take shares of images that are right, and means of any metric in [0, 1], of which they are
then somewhat wide: no such metric varies more than one of zeros and ones with the same mean.
"""

from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError

_NORMAL = NormalDist()


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the two-sided interval of a share, which a share of 0 or 1 has a width too.

    The score interval of Wilson 1927, as Brown, Cai and DasGupta 2001 (eq. 4) recommend it.

    Args:
        share: observed, in [0, 1].
        count: number of images.
        confidence: of the interval.

    Raises:
        InputError: there are no images.
    """
    if count < 1:
        raise InputError("an interval needs at least one image")
    z2 = _NORMAL.inv_cdf((1 + confidence) / 2) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = share * (1 - share) / count + z2 / (4 * count**2)
    half = sqrt(z2 * max(0.0, spread)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def drop_bound(
    before: NDArray[np.float64], after: NDArray[np.float64], confidence: float = 0.95
) -> float:
    """Returns the one-sided upper bound of by how much a mean falls, on the same images.

    The score bound for paired shares of Tango 1998 (Statistics in Medicine 17, eq. 6 to 8): unlike
    that of a normal distribution it holds where few images differ, or none.

    Args:
        before: metric of every image, in [0, 1], `(images,)`.
        after: of the other network, likewise.
        confidence: that the true drop is no larger.

    Raises:
        InputError: there are no images.
    """
    from scipy.optimize import brentq  # slow to import, and reports have no use for it

    count = len(before)
    if count < 1:
        raise InputError("a bound needs at least one image")
    change = before - after
    lost, gained = float(change.clip(0).sum()), float((-change).clip(0).sum())
    limit = _NORMAL.inv_cdf(confidence)

    def excess(drop: float) -> float:
        linear = (2 * count - lost + gained) * drop - lost - gained
        constant = -gained * drop * (1 - drop)
        gains = (sqrt(linear**2 - 8 * count * constant) - linear) / (4 * count)
        variance = count * (2 * gains + drop * (1 - drop))
        return lost - gained - count * drop + limit * sqrt(max(variance, 1e-300))

    observed = (lost - gained) / count
    if excess(1 - 1e-12) >= 0:
        return 1.0
    return float(brentq(excess, max(observed, -1 + 1e-12), 1 - 1e-12, xtol=1e-12))


def least_certifiable_drop(count: int, confidence: float = 0.95) -> float:
    """Returns the bound of two networks that are right on exactly the same images."""
    return drop_bound(np.zeros(count), np.zeros(count), confidence)


def images_to_certify(drop: float, confidence: float = 0.95) -> int:
    """Returns the least number of images whose `least_certifiable_drop` is no more than a drop.

    The bound of no differing image is z^2 / (images + z^2), which is solved for the images.

    Args:
        drop: as a share, above 0.
        confidence: of the bound.
    """
    limit = _NORMAL.inv_cdf(confidence) ** 2
    return max(1, ceil(limit * (1 - drop) / drop))
