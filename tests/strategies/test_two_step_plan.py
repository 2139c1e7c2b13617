"""The plan without a search: the best of all plans that fit, where these can be counted."""

from itertools import product

import numpy as np
import pytest

from evosearch.errors import InfeasibleBudget
from evosearch.strategies.two_step import TwoStep
from evosearch.strategies.two_step_plan import two_step_plan
from tests.strategies.problems import budget_of, chain

SPACE = chain([5, 4, 6])


def gram(seed: int) -> dict[tuple[str, str], np.ndarray]:
    rng = np.random.default_rng(seed)
    factors = {name: rng.normal(size=(size, size + 2)) for name, size in SPACE.sizes.items()}
    return {(name, name): f @ f.T * rng.uniform(0.1, 1.0) for name, f in factors.items()}


@pytest.mark.parametrize("seed", range(8))
def test_no_plan_that_fits_has_a_lower_error(seed: int) -> None:
    budget, channels = budget_of(SPACE, macs=0.3 + seed / 16), TwoStep(SPACE, gram(seed))
    curves = [channels.curve(name) for name in SPACE.sizes]

    def error(widths: tuple[int, ...]) -> float:
        pairs = zip(curves, widths, strict=True)
        return float(sum(c.errors[c.widths.tolist().index(w)] ** 4 for c, w in pairs))

    plans = list(product(*(group.legal_widths() for group in SPACE.groups)))
    fitting = [plan for plan in plans if SPACE.fits(np.array([plan]), budget)[0]]
    mask = two_step_plan(SPACE, budget, gram(seed))
    widths = SPACE.widths(mask)
    assert tuple(widths) in fitting
    assert error(tuple(widths)) == pytest.approx(min(map(error, fitting)))
    assert mask == channels.mask(widths)


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(InfeasibleBudget):
        two_step_plan(SPACE, budget_of(SPACE, macs=0.3).exactly(macs=1), gram(0))
