"""The sampler of SPDY: random coefficients of groups at first, then a shrinking local search.

Frantar and Alistarh 2022 (arXiv 2201.13096), after the authors' code: 100 draws of one coefficient
in (0, 1] for each layer; then, from the best, a tenth of the coefficients is drawn anew, until 100
draws in a row brought no gain; then one coefficient fewer, down to one.
"""

from collections.abc import Sequence

import numpy as np

from evosearch.space.knowledge import Array

SHARE = 0.1
"""Share of the coefficients that the local search draws anew at first."""


def sampled_coefficients(
    history: Sequence[tuple[Array, float]],
    count: int,
    rng: np.random.Generator,
    *,
    draws: int,
    failures: int,
    more: int = 0,
) -> Array:
    """Returns the coefficients to try next, in (0, 1], `(count,)`.

    Args:
        history: what was tried, in order: coefficients and loss, infinite where there is none.
        count: of coefficients.
        rng: of the draws.
        draws: at random, before the local search.
        failures: draws in a row without gain after which one coefficient fewer is drawn anew;
            one always is.
        more: coefficients that are drawn anew beside, but for one, to get away from what was
            tried; and the power that all that is drawn is taken to is so much more than 1.
    """
    drawn = (1 - rng.random(count)) ** (1 + more)
    if len(history) < draws:
        return np.asarray(drawn)
    best, changed = _progress(history, count, draws, failures)
    chosen = rng.permutation(count)[: min(changed + more, max(1, count - 1))]
    result = best.copy()
    result[chosen] = drawn[chosen]
    return result


def _progress(
    history: Sequence[tuple[Array, float]], count: int, draws: int, failures: int
) -> tuple[Array, int]:
    """Returns the best coefficients, and how many of them are to be drawn anew."""
    best, least = min(history[:draws], key=lambda known: known[1])
    changed, failed = max(1, round(SHARE * count)), 0
    for coefficients, loss in history[draws:]:
        if loss < least:
            best, least, failed = coefficients, loss, 0
            continue
        failed += 1
        if failed == failures:
            changed, failed = max(1, changed - 1), 0
    return best, changed
