"""Measured sensitivities: calibrated error curves, and widths for one tolerance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evosearch.errors import InputError
from evosearch.space.knowledge import SensitivityCurve
from evosearch.strategies.sensitivity import LEAST_INCREASE, SensitivityRates, calibrated
from evosearch.strategies.two_step import ErrorCurve
from tests.strategies.problems import budget_of, chain, knowledge_of

CURVE = ErrorCurve(widths=np.arange(1, 9), errors=np.array([8.0, 6, 4, 3, 2, 1, 0.5, 0]))


def probed(widths: list[int], losses: list[float]) -> dict[str, SensitivityCurve]:
    return {"g": SensitivityCurve(widths=np.array(widths), loss_increase=np.array(losses))}


# Calibration


def test_calibrated_curve_meets_the_measurements() -> None:
    curve = calibrated(CURVE, "g", probed([2, 4, 8], [0.6, 0.03, 0.0]))
    np.testing.assert_array_equal(curve.widths, CURVE.widths)
    assert curve.errors[1] == pytest.approx(0.6)
    assert curve.errors[3] == pytest.approx(0.03)
    # half-way the factors 0.1 and 0.01 meet at their geometric mean
    assert curve.errors[2] == pytest.approx(4 * np.sqrt(0.1 * 0.01))
    # beyond the probes the nearest factor holds
    assert curve.errors[0] == pytest.approx(0.8)
    assert curve.errors[5] == pytest.approx(0.01)
    assert curve.errors[7] == 0


def test_noise_counts_as_the_least_increase() -> None:
    curve = calibrated(CURVE, "g", probed([4, 8], [-0.2, 0.0]))
    assert curve.errors[3] == pytest.approx(LEAST_INCREASE)


@given(st.lists(st.floats(-1, 5), min_size=3, max_size=3))
def test_calibrated_curves_never_rise(losses: list[float]) -> None:
    curve = calibrated(CURVE, "g", probed([2, 4, 6, 8], [*losses, 0.0]))
    assert np.all(np.diff(curve.errors) <= 0)
    assert np.all(curve.errors >= 0)


def test_a_group_without_probes_keeps_its_curve() -> None:
    assert calibrated(CURVE, "g", probed([8], [0.0])) is CURVE
    with pytest.raises(InputError, match="no sensitivity of group 'h'"):
        calibrated(CURVE, "h", probed([8], [0.0]))


# Rates


def increase(curve: SensitivityCurve, width: int) -> float:
    return float(np.interp(width, curve.widths, curve.loss_increase))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 1), st.booleans())
def test_widths_are_legal_and_leave_no_room(seed: int, share: float, both: bool) -> None:
    rng = np.random.default_rng(seed)
    space = chain(rng.integers(4, 20, 4), multiple_of=2)
    budget = budget_of(space, macs=share, **({"params": share} if both else {}))
    rates = SensitivityRates(space, knowledge_of(space, seed).sensitivity)
    widths = rates.widths(rng.normal(size=4), budget)
    assert space.fits(widths[None], budget)[0]
    for i, group in enumerate(space.groups):
        assert widths[i] in group.legal_widths()
        wider = [w for w in group.legal_widths() if w > widths[i]]
        if wider:
            larger = widths.copy()
            larger[i] = wider[0]
            assert not space.fits(larger[None], budget)[0]


def test_one_tolerance_for_all() -> None:
    space = chain([20, 20, 20])
    probes = np.arange(1, 21)
    curves = {
        name: SensitivityCurve(widths=probes, loss_increase=scale * (1 - probes / 20) ** 2)
        for name, scale in {"g0": 0.1, "g1": 1.0, "g2": 0.01}.items()
    }
    budget = budget_of(space, macs=0.4)
    # The definition: the least tolerance whose smallest widths fit.
    for tolerance in np.unique([increase(c, int(w)) for c in curves.values() for w in probes]):
        least = np.array(
            [
                next(w for w in probes if increase(curve, int(w)) <= tolerance)
                for curve in curves.values()
            ]
        )
        if space.fits(least[None], budget)[0]:
            break
    rates = SensitivityRates(space, curves)
    found = rates.widths(np.zeros(3), budget)
    assert rates.order.tolist() == [1, 0, 2]
    assert np.all(found >= least)
    assert found.sum() - least.sum() <= 2  # what the tolerance left over
    assert found[1] > found[0] > found[2]


def test_a_factor_protects_its_group() -> None:
    space = chain([20, 20, 20])
    rates = SensitivityRates(space, knowledge_of(space, 0).sensitivity)
    budget = budget_of(space, macs=0.4)
    widths = [rates.widths(np.array([f, 0.0, 0.0]), budget)[0] for f in (-2.0, 0.0, 2.0)]
    assert widths[0] < widths[1] < widths[2]


def test_noise_and_unprobed_widths_do_not_look_free() -> None:
    space = chain([20, 20])
    widths = np.array([5, 10, 20])
    curves = {
        # Measured better than the base network when cut, and worse when cut less.
        "g0": SensitivityCurve(widths=widths, loss_increase=np.array([-0.01, -0.02, 0.0])),
        "g1": SensitivityCurve(widths=widths, loss_increase=np.array([0.3, 0.5, 0.0])),
    }
    found = SensitivityRates(space, curves).widths(np.zeros(2), budget_of(space, macs=0.35))
    assert found.tolist() == [5, 18]  # free down to the smallest probe, and no further
