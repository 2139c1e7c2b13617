"""The table of resources: one row more is one budget more, from the text to the search."""

from dataclasses import replace
from pathlib import Path

import pytest

from evosearch.engine.loop import Limits, Outcome, search
from evosearch.engine.parallel import OneByOne
from evosearch.errors import InfeasibleBudget, InputError
from evosearch.space.budget import Bound, BudgetRequest
from evosearch.space.mask import Mask
from evosearch.space.resources import COUNT, RESOURCES, Resource
from evosearch.strategies import STRATEGIES
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from tests.run.test_session import SPACE, builder, header
from tests.strategies.kinds import UNDRAWN
from tests.toys import ToyEvaluator

ROW = Resource(
    name="activations",
    option="activations",
    label="activations",
    unit=" activations",
    quantity=COUNT,
    help="50%, 30%..70% or 1M.",
)


@pytest.fixture
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESOURCES, ROW.name, ROW)


def activations(mask: Mask) -> int:
    """Returns what the toy network's three layers give out, by hand: 90 of the whole network."""
    stem, stream, inner = (int(mask[name].sum()) for name in ("stem", "stream", "inner"))
    return 4 * stem + 4 * stream + 2 * inner + 10


def test_without_a_row_there_is_no_such_budget() -> None:
    with pytest.raises(InputError, match="unknown budget 'activations'"):
        BudgetRequest.of(activations="50%")


@pytest.mark.usefixtures("_row")
def test_a_row_is_parsed_and_held_together_with_others() -> None:
    budget = BudgetRequest.of(activations="50%..80%", flops="40%").resolve(SPACE.base_cost)
    macs = SPACE.base_cost.macs * 40 // 100
    assert budget.bounds["activations"] == Bound(low=45, high=72)
    assert list(budget.bounds) == ["macs", "activations"]
    assert budget.bounds["macs"].high == pytest.approx(macs, abs=1)
    assert budget.measured == {}
    full = SPACE.full_mask()
    assert activations(full) == 90
    over = budget.violation(SPACE.cost(full))
    assert over == pytest.approx((90 - 72) / 72 + (SPACE.base_cost.macs - macs) / macs, rel=1e-3)


@pytest.mark.usefixtures("_row")
def test_an_infeasible_budget_names_the_row() -> None:
    budget = BudgetRequest.of(activations="10%").resolve(SPACE.base_cost)
    with pytest.raises(InfeasibleBudget) as caught:
        SPACE.require_reachable(budget)
    assert str(caught.value) == (
        "budget of 9 activations (10.0% of the base) is out of reach: the smallest reachable"
        " network has 20 activations (22.2%), held up by third 12, first 4, second 4"
    )


@pytest.mark.usefixtures("_row")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_holds_it_and_comes_near_to_it(strategy: str, tmp_path: Path) -> None:
    budget = BudgetRequest.of(activations="50%").resolve(SPACE.base_cost)
    study = Study.create(tmp_path, replace(header(strategy), budget=budget))
    outcome = search(
        study=study,
        space=SPACE,
        build=builder(strategy),
        executor=OneByOne(ToyEvaluator()),
        store=ScoreStore(tmp_path / "scores"),
        limits=Limits(trials=16),
    )
    found = [activations(trial.mask) for trial in study.trials]
    if strategy in UNDRAWN:
        # These draw nothing, and end with the last plan that they know.
        assert 4 < len(found) <= 16
        assert (outcome is Outcome.TRIALS) == (len(found) == 16)
    else:
        assert len(found) == 16
    assert max(found) <= 45
    assert max(found) > 45 - (4 + 4 + 2)  # one more channel in every group is too much
    assert [trial.cost.activations for trial in study.trials] == found
    assert study.header.resource is ROW
    again = Study.open(tmp_path)
    assert again.requested == budget
    sizes = [trial.cost.activations for trial in again.front().members]
    assert sizes == sorted(set(sizes))
