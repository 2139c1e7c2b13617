"""Exact one-sided bound of by how much a share falls, of two networks on the same images.

Only images that one network alone gets right tell the two apart: those *lost* and those *gained*.
Their numbers are trinomial, and the drop is the difference of their true shares. The bound is that
of Buehler 1957 (JASA 52), as Lloyd and Moldovan 2007 (Statistics in Medicine 26) take it for
paired shares: the largest drop at which outcomes that look no worse than the one seen are as
likely as the error allowed, whatever the true share of gained images. How bad an outcome looks is
told by the score bound of Tango 1998 (Statistics in Medicine 17, eq. 6 to 8), which by itself errs
too often where few images differ. The share of gained images is sought where those seen make it
likely, and the rest counts as error (Berger and Boos 1994, JASA 89).

It takes metrics in [0, 1] too, whose sums are rounded to the worse number of images: no such
metric varies more than one of zeros and ones with the same mean.
"""

from functools import lru_cache
from math import ceil, floor, log, log1p, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError

Reals = NDArray[np.float64]

UNLIKELY = 1e-5
"""Error that is set aside for gained images whose number is out of the ordinary."""
_REFINEMENTS = 3
"""Of the steps between shares of gained images, around the worst."""
_HALVINGS = 32
"""Of an interval of shares, which is then far below anything that is shown."""


def drop_bound(before: Reals, after: Reals, confidence: float = 0.95) -> float:
    """Returns the one-sided upper bound of by how much a mean falls, on the same images.

    Args:
        before: metric of every image, in [0, 1], `(images,)`.
        after: of the other network, likewise.
        confidence: that the true drop is no larger, at least.

    Raises:
        InputError: there are no images.
    """
    change = before - after
    lost, gained = float(change.clip(0).sum()), float((-change).clip(0).sum())
    rounding = 1e-9  # of sums
    return _bound(len(change), ceil(lost - rounding), floor(gained + rounding), confidence)


def least_certifiable_drop(count: int, confidence: float = 0.95) -> float:
    """Returns the bound of two networks that are right on exactly the same images.

    Args:
        count: number of images.
        confidence: of the bound.

    Raises:
        InputError: there are no images.
    """
    return _bound(count, 0, 0, confidence)


def images_to_certify(drop: float, confidence: float = 0.95) -> int:
    """Returns the least number of images whose `least_certifiable_drop` is no more than a drop.

    Were the drop larger, all images would agree with a chance under (1 - drop)^images.

    Args:
        drop: as a share, above 0.
        confidence: of the bound.
    """
    return 1 if drop >= 1 else max(1, ceil(log(1 - confidence - UNLIKELY) / log1p(-drop)))


@lru_cache(maxsize=4096)
def _bound(count: int, lost: int, gained: int, confidence: float) -> float:
    from scipy.special import betaincinv  # slow to import, and reports have no use for it

    if count < 1:
        raise InputError("a bound needs at least one image")
    if lost == count:
        return 1.0
    # Clopper and Pearson's interval of the share that is gained.
    rest = UNLIKELY / 2
    low = betaincinv(gained, count - gained + 1, rest) if gained else 0.0
    high = betaincinv(gained + 1, count - gained, 1 - rest) if gained < count else 1.0
    # The root of a share has the same standard error everywhere, which is four steps or more.
    steps = 32 + ceil(8 * sqrt(count) * (sqrt(high) - sqrt(low)))
    roots = np.linspace(sqrt(low), sqrt(high), steps)
    largest = -1.0
    for _ in range(1 + _REFINEMENTS):
        drops = _drops(roots**2, count, lost, gained, confidence)
        at = int(drops.argmax())
        largest = max(largest, float(drops[at]))
        roots = np.linspace(roots[max(at - 1, 0)], roots[min(at + 1, len(roots) - 1)], 9)
    return largest


def _drops(gains: Reals, count: int, lost: int, gained: int, confidence: float) -> Reals:
    """Returns the bound of the drop for each true share of gained images, `(shares,)`.

    Given how many images are gained, those lost are binomial among the others. The chance of
    outcomes that look no worse falls as their share rises, and is halved in on.
    """
    from scipy.special import bdtr, gammaln, xlog1py, xlogy

    middle, spread = count * gains, 8 * np.sqrt(count * gains) + 20
    least, most = max(0, floor((middle - spread).min())), min(count, ceil((middle + spread).max()))
    numbers = np.arange(least, most + 1)  # of gained images; others do not occur
    worst = _worst_alike(numbers, count, lost, gained, confidence)
    numbers, worst = numbers[worst >= 0], worst[worst >= 0]
    ways = gammaln(count + 1) - gammaln(numbers + 1) - gammaln(count - numbers + 1)
    logs = xlogy(numbers, gains[:, None]) + xlog1py(count - numbers, -gains[:, None])
    chances = np.exp(ways + logs)
    low, high = np.zeros(len(gains)), np.ones(len(gains))
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        tails = bdtr(worst.astype(float), count - numbers, share[:, None])
        likely = (chances * tails).sum(axis=1) > 1 - confidence - UNLIKELY
        low, high = np.where(likely, share, low), np.where(likely, high, share)
    drops: Reals = high * (1 - gains) - gains
    return drops


def _worst_alike(
    numbers: NDArray[np.intp], count: int, lost: int, gained: int, confidence: float
) -> NDArray[np.intp]:
    """Returns the most lost images that look no worse than what was seen, -1 where all do.

    Args:
        numbers: of images gained in other outcomes, `(numbers,)`.
        count: of images.
        lost: of them, in the outcome that was seen.
        gained: likewise.
        confidence: of the score bound.
    """
    limit = NormalDist().inv_cdf(confidence)
    bound = _score_bound(count, lost, gained, limit)
    seen = _score(bound, count, np.array(lost), np.array(gained)) + 1e-9
    # The more is lost, the worse it looks; what was seen itself is within.
    inside = np.where(numbers >= gained, np.minimum(lost, count - numbers), -1)
    outside = count - numbers + 1
    while (outside - inside > 1).any():
        half = (inside + outside) // 2
        alike = _score(bound, count, half, numbers) <= seen
        inside, outside = np.where(alike, half, inside), np.where(alike, outside, half)
    return inside


def _score_bound(count: int, lost: int, gained: int, limit: float) -> float:
    """Returns Tango's bound of the drop, `limit` standard errors away."""
    from scipy.optimize import brentq

    def excess(drop: float) -> float:
        return float(_score(drop, count, np.array(lost), np.array(gained))) + limit

    most = 1 - 1e-12
    if excess(most) >= 0:
        return most
    return float(brentq(excess, max((lost - gained) / count, -most), most, xtol=1e-12))


def _score(
    drop: float, count: int, lost: NDArray[np.intp], gained: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Returns how far outcomes are above a true drop, in standard errors; Tango's eq. 6."""
    linear = (2 * count - lost + gained) * drop - lost - gained
    constant = -gained * drop * (1 - drop)
    likeliest = (np.sqrt(np.maximum(linear**2 - 8 * count * constant, 0)) - linear) / (4 * count)
    variance = count * (2 * likeliest + drop * (1 - drop))
    score: Reals = (lost - gained - count * drop) / np.sqrt(np.maximum(variance, 1e-300))
    return score
