"""Costs, and budgets as users write them."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evosearch.errors import InputError
from evosearch.space.budget import Bound, Budget, BudgetRequest
from evosearch.space.cost import Cost, format_count

BASE = Cost(macs=1_000_000, params=40_000, activations=5_000)


def test_flops_are_twice_the_macs() -> None:
    assert BASE.flops == 2_000_000


def test_relative_cost() -> None:
    half = Cost(macs=250_000, params=10_000, activations=500)
    assert half.relative_to(BASE) == {"macs": 0.25, "params": 0.25, "activations": 0.1}


@pytest.mark.parametrize(
    ("flops", "params", "expected"),
    [
        ("50%", None, {"macs": [500_000, 500_000]}),
        ("30%..70%", None, {"macs": [300_000, 700_000]}),
        (" 30% .. 70% ", None, {"macs": [300_000, 700_000]}),
        ("1M", None, {"macs": [500_000, 500_000]}),
        ("0.5m", None, {"macs": [250_000, 250_000]}),
        ("1.5 M", None, {"macs": [750_000, 750_000]}),
        ("20K..40%", None, {"macs": [10_000, 400_000]}),
        ("100%", None, {"macs": [1_000_000, 1_000_000]}),
        ("1000001", None, {"macs": [500_000, 500_000]}),
        (".5%", None, {"macs": [5_000, 5_000]}),
        (None, "10K", {"params": [10_000, 10_000]}),
        (None, "33.333%", {"params": [13_333, 13_333]}),
        ("1%", "25%..100%", {"macs": [10_000, 10_000], "params": [10_000, 40_000]}),
    ],
)
def test_parses(flops: str | None, params: str | None, expected: dict[str, list[int]]) -> None:
    assert BudgetRequest.of(flops=flops, params=params).resolve(BASE).to_json() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", "--flops 'half': expected an amount such as 40M"),
        ("", "expected an amount"),
        ("50%%", "expected an amount"),
        ("-5M", "expected an amount"),
        ("1e6", "expected an amount"),
        ("40T", "expected an amount"),
        ("nan", "expected an amount"),
        ("50%..", "expected an amount"),
        ("10%..20%..30%", "a range is written LOW..HIGH"),
        ("70%..30%", "runs backwards"),
        ("101%", "more than the base network's 2M"),
        ("3M", "more than the base network"),
        ("0", "must be positive"),
        ("0%", "must be positive"),
        ("0.00001%", "must be positive"),
        ("0.5", "--flops '0.5': a share is written with %: 50%"),
        (".125", "a share is written with %: 12.5%"),
        ("0.3..70%", "--flops '0.3..70%': a share is written with %: 30%"),
    ],
)
def test_refuses_with_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        BudgetRequest.of(flops=text).resolve(BASE)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_refuses_params_by_their_own_name() -> None:
    with pytest.raises(InputError, match="--params '50K': more than the base network's 40K"):
        BudgetRequest.of(params="50K").resolve(BASE)


def test_needs_a_limit() -> None:
    with pytest.raises(InputError, match="at least one of FLOPs, params, latency, memory and"):
        Budget(bounds={})


def test_a_number_of_python_is_read_as_its_text() -> None:
    numbers: list[Any] = [40_000, 0.5]
    asked = [BudgetRequest.of(flops=number) for number in numbers]
    assert asked[0].resolve(BASE).to_json() == {"macs": [20_000, 20_000]}
    with pytest.raises(InputError, match=r"--flops '0\.5': a share is written with %: 50%"):
        asked[1].resolve(BASE)


BYTES = Cost(macs=1, params=1, activations=1, memory=4_000_000, size=2_000_000)


@pytest.mark.parametrize(
    ("memory", "size", "expected"),
    [
        ("2MB", None, {"memory": [2_000_000, 2_000_000]}),
        (None, "500KB", {"size": [500_000, 500_000]}),
        (" 1.5 mib ", "1KiB", {"memory": [1_572_864, 1_572_864], "size": [1024, 1024]}),
        ("25%", "800000B", {"memory": [1_000_000, 1_000_000], "size": [800_000, 800_000]}),
        ("500KB..50%", None, {"memory": [500_000, 2_000_000]}),
    ],
)
def test_bytes_are_parsed(memory: str, size: str, expected: dict[str, list[int]]) -> None:
    assert BudgetRequest.of(memory=memory, size=size).resolve(BYTES).to_json() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "--memory '2': expected an amount with its unit, such as 500KB, 2MB or 1.5MiB"),
        ("2M", "expected an amount with its unit"),
        ("2Mb/s", "expected an amount with its unit"),
        ("2MB..1MB", "runs backwards"),
        ("5MB", "more than the base network's 4 MB; nothing to cut"),
        ("0.1B", "a budget must be positive"),
    ],
)
def test_bad_bytes_are_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        BudgetRequest.of(memory=text).resolve(BYTES)
    assert "\n" not in str(caught.value)


def test_where_bytes_are_not_known_a_budget_of_them_is_refused() -> None:
    with pytest.raises(InputError, match="memory of these networks is not known; it is"):
        BudgetRequest.of(memory="50%").resolve(BASE)


@pytest.mark.parametrize(("low", "high"), [(0, 5), (6, 5), (-1, 1)])
def test_bounds_are_positive_and_ordered(low: int, high: int) -> None:
    with pytest.raises(InputError, match="0 < low <= high"):
        Bound(low=low, high=high)


@given(st.integers(1, 10**13), st.integers(1, 10**13), st.floats(0, 1), st.floats(0, 1))
def test_positions_span_the_range_in_order(a: int, b: int, p: float, q: float) -> None:
    bound = Bound(low=min(a, b), high=max(a, b))
    assert (bound.at(0), bound.at(1)) == (bound.low, bound.high)
    low, high = bound.at(min(p, q)), bound.at(max(p, q))
    assert bound.low <= low <= high <= bound.high


def test_a_point_of_a_range_is_no_range() -> None:
    budget = Budget.of(macs=Bound(low=100, high=300), params=Bound(low=50, high=50))
    assert budget.is_range
    assert budget.at(0.5).to_json() == {"macs": [200, 200], "params": [50, 50]}
    assert not budget.at(0.5).is_range


def test_violation_adds_the_shares_over_the_upper_bounds() -> None:
    budget = Budget.of(macs=Bound(low=100, high=200), params=Bound(low=10, high=10))
    assert budget.violation(Cost(macs=200, params=10, activations=99)) == 0
    assert budget.violation(Cost(macs=150, params=5, activations=99)) == 0
    assert budget.violation(Cost(macs=300, params=5, activations=99)) == 0.5
    assert budget.violation(Cost(macs=300, params=15, activations=99)) == 1.0


@given(
    st.tuples(st.integers(1, 10**9), st.integers(0, 10**9)),
    st.none() | st.tuples(st.integers(1, 10**9), st.integers(0, 10**9)),
)
def test_json_round_trip(macs: tuple[int, int], params: tuple[int, int] | None) -> None:
    bounds = {"macs": Bound(low=macs[0], high=sum(macs))}
    if params is not None:
        bounds["params"] = Bound(low=params[0], high=sum(params))
    budget = Budget.of(**bounds)
    assert Budget.from_json(json.loads(json.dumps(budget.to_json()))) == budget


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (7, "7"), (999, "999"), (1000, "1K"), (12_345, "12.3K"), (999_499, "999K"),
        (999_600, "1M"), (41_234_567, "41.2M"), (1.5e9, "1.5G"), (1234e9, "1234G"),
    ],
)  # fmt: skip
def test_format_count(count: float, text: str) -> None:
    assert format_count(count) == text


def test_violation_adds_what_the_accuracy_lacks() -> None:
    budget = Budget.of(macs=Bound(low=100, high=100), least_accuracy=0.9)
    cost = Cost(macs=150, params=1, activations=1)
    assert budget.violation(cost, 0.8) == pytest.approx(0.5 + 0.1)
    assert budget.violation(cost, 0.95) == pytest.approx(0.5)
    assert budget.violation(cost) == pytest.approx(0.5)
