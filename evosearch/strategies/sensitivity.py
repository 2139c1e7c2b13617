"""Measured sensitivities put to use: the scale of error curves, and widths for one tolerance."""

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError
from evosearch.space.budget import Budget
from evosearch.space.knowledge import Array, SensitivityCurve
from evosearch.space.space import SearchSpace, Widths
from evosearch.strategies.two_step import ErrorCurve

LEAST_INCREASE = 1e-4
"""Smaller loss increases, in nats, are noise: they count as this much."""


def calibrated(
    curve: ErrorCurve, group: str, sensitivity: Mapping[str, SensitivityCurve]
) -> ErrorCurve:
    """Scales a group's two-step error curve to the loss increases that were measured.

    The two-step error knows nothing of compensation, nor of what a layer's error does to the
    loss. The factor between them is measured at the probed widths and interpolated, as a
    logarithm, in between.

    Args:
        curve: the group's, in shares of output energy.
        group: its name.
        sensitivity: measured curves, by group.

    Returns:
        The curve in nats, never rising with the width.

    Raises:
        InputError: the group was not probed.
    """
    if group not in sensitivity:
        raise InputError(f"the knowledge holds no sensitivity of group {group!r}")
    probed = sensitivity[group].widths[:-1]  # the last is the whole group: no error, no factor
    if len(probed) == 0:
        return curve
    measured = np.maximum(sensitivity[group].loss_increase[:-1], LEAST_INCREASE)
    predicted = np.maximum(np.interp(probed, curve.widths, curve.errors), 1e-12)
    factors = np.interp(curve.widths, probed, np.log(measured / predicted))
    scaled = curve.errors * np.exp(factors)
    return ErrorCurve(widths=curve.widths, errors=np.maximum.accumulate(scaled[::-1])[::-1])


@final
class SensitivityRates:
    """Turns measured sensitivities into widths under a budget.

    Attributes:
        order: indices of the groups, most sensitive at half their channels first, `(groups,)`.
    """

    def __init__(self, space: SearchSpace, curves: Mapping[str, SensitivityCurve]) -> None:
        """Interpolates the curves at all legal widths.

        Raises:
            InputError: a group has no curve.
        """
        for group in space.groups:
            if group.name not in curves:
                raise InputError(f"the knowledge holds no sensitivity of group {group.name!r}")
        self._space = space
        self._legal = [np.array(group.legal_widths(), dtype=np.int64) for group in space.groups]
        falling = [_falling(curves[group.name]) for group in space.groups]
        worst = max(float(curve.loss_increase[0]) for curve in falling)
        self._losses = [
            _interpolated(curve, legal, worst)
            for curve, legal in zip(falling, self._legal, strict=True)
        ]
        halves = [
            np.interp(group.size / 2, curve.widths, curve.loss_increase)
            for group, curve in zip(space.groups, falling, strict=True)
        ]
        self.order: NDArray[np.int64] = np.argsort(-np.array(halves), kind="stable")

    def widths(self, factors: Array, budget: Budget) -> Widths:
        """Returns legal widths within a budget for one tolerance of loss, `(groups,)`.

        Each group gets the smallest width whose loss increase times `exp(factor)` is within the
        tolerance; the least tolerance that fits the budget is taken. What it leaves goes to the
        groups one legal step at a time in turn, most sensitive first.

        Args:
            factors: log factors on the sensitivities, `(groups,)`.
            budget: its upper end is met; it must be reachable.
        """
        losses = [own * np.exp(f) for own, f in zip(self._losses, factors, strict=True)]
        # Widths change only at these tolerances: bisect for the first that fits.
        tolerances = np.unique(np.concatenate(losses))
        over, fitting = -1, len(tolerances) - 1
        while fitting - over > 1:
            middle = (over + fitting) // 2
            if self._fits(_steps(losses, tolerances[middle]), budget):
                fitting = middle
            else:
                over = middle
        return self._grown(_steps(losses, tolerances[fitting]), budget)

    def _at(self, steps: NDArray[np.int64]) -> Widths:
        return np.array([w[s] for w, s in zip(self._legal, steps, strict=True)], dtype=np.int64)

    def _fits(self, steps: NDArray[np.int64], budget: Budget) -> bool:
        return bool(self._space.fits(self._at(steps)[None], budget)[0])

    def _grown(self, steps: NDArray[np.int64], budget: Budget) -> Widths:
        growing = list(self.order)
        while growing:
            grown = []
            for group in growing:
                larger = steps.copy()
                larger[group] += 1
                if larger[group] < len(self._legal[group]) and self._fits(larger, budget):
                    steps = larger
                    grown.append(group)
            growing = grown
        return self._at(steps)


def _falling(curve: SensitivityCurve) -> SensitivityCurve:
    """Returns the curve without noise that would have a smaller width cost less loss."""
    losses = np.maximum(curve.loss_increase, 0.0)
    return SensitivityCurve(
        widths=curve.widths, loss_increase=np.maximum.accumulate(losses[::-1])[::-1]
    )


def _interpolated(curve: SensitivityCurve, legal: Widths, worst: float) -> Array:
    """Returns the loss increase at every legal width.

    Under the smallest width probed nothing is known. There the loss rises on, and by no less
    than `worst` in all, so that an unprobed width never looks free.
    """
    widths, losses = curve.widths, curve.loss_increase
    inside = np.interp(legal, widths, losses)
    slope = worst / widths[0]
    if len(widths) > 1:
        slope = max(slope, (losses[0] - losses[1]) / (widths[1] - widths[0]))
    return np.asarray(inside + slope * np.maximum(widths[0] - legal, 0))


def _steps(losses: Sequence[Array], tolerance: float) -> NDArray[np.int64]:
    """Returns the index of each group's smallest width within a tolerance, `(groups,)`."""
    return np.array([np.searchsorted(-own, -tolerance) for own in losses], dtype=np.int64)
