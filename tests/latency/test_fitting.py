import numpy as np
import pytest

from evosearch.latency.fitting import OVERHEAD, fit_latency, predict
from tests.toys import toy_space

KINDS = {"first": "a", "second": "a", "third": "b"}


def true_picoseconds(widths: np.ndarray) -> np.ndarray:
    stem, stream, inner = widths.T
    a = 5 * (27 * stem + 36 * stem * stream) + 30 * (4 * stem + 4 * stream)
    b = 2 * (18 * stream * inner + 120)
    return 1000 * (10_000 + a + b)


def test_the_form_is_found_again() -> None:
    space, rng = toy_space(), np.random.default_rng(0)
    widths = np.stack([rng.integers(1, g.size + 1, size=40) for g in space.groups], axis=1)
    base = int(true_picoseconds(space.full_widths[None])[0])
    terms = fit_latency(space, KINDS, widths, true_picoseconds(widths) / base, base)
    assert terms[0].name == OVERHEAD
    predicted = predict(terms, space, widths)
    assert predicted == pytest.approx(true_picoseconds(widths), rel=2e-3)


def test_predictions_are_never_negative_and_rounded_up() -> None:
    space = toy_space()
    widths = np.array([[1, 1, 1], [6, 8, 12]])
    terms = fit_latency(space, KINDS, widths, np.array([1.2, 0.8]), 1000)
    assert all(m.coefficient >= 1 for term in terms[1:] for m in term.picoseconds)
    assert (predict(terms, space, widths) > 0).all()
