"""Curves of what each group's cut costs by itself, as `rates` predicts it.

The prediction is the geometric mean of two: the loss increase measured when the group alone is
cut (`sensitivity.calibrated`), and its two-step error to a power (`two_step_plan.steep`). The
first misjudges deep networks, where all groups are cut at once; the second knows nothing of the
loss.
"""

from collections.abc import Mapping

import numpy as np

from evosearch.space.knowledge import Array, Knowledge
from evosearch.space.space import Widths
from evosearch.strategies.sensitivity import calibrated
from evosearch.strategies.two_step import ErrorCurve
from evosearch.strategies.two_step_plan import steep

Curves = Mapping[str, ErrorCurve]
"""Group name -> curve."""


def predicted(two_step: Curves, knowledge: Knowledge) -> Curves:
    """Returns the predictions.

    Args:
        two_step: the groups' two-step errors.
        knowledge: has the sensitivities.

    Raises:
        InputError: a group was not probed.
    """
    curves = {}
    for name, curve in two_step.items():
        measured = calibrated(curve, name, knowledge.sensitivity)
        errors = np.sqrt(measured.errors * steep(curve).errors)
        curves[name] = ErrorCurve(widths=curve.widths, errors=errors)
    return curves


def to_power(curves: Curves, power: int) -> Curves:
    """Returns curves whose errors are a power of those given."""
    return {
        name: ErrorCurve(widths=curve.widths, errors=curve.errors**power)
        for name, curve in curves.items()
    }


def costs_of(curves: Curves, widths: Widths) -> Array:
    """Returns what each group's cut costs by itself, `(plans, groups)`.

    Args:
        curves: of all groups, in order.
        widths: `(plans, groups)`.
    """
    pairs = zip(widths.T, curves.values(), strict=True)
    return np.stack([np.interp(own, c.widths, c.errors) for own, c in pairs], axis=1)
