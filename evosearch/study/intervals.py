"""Wilson's interval of a share: of images that are right, or the mean of a metric in [0, 1].

Of the latter it is somewhat wide: no such metric varies more than one of zeros and ones with the
same mean.
"""

from math import sqrt
from statistics import NormalDist

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
