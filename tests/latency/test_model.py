from dataclasses import replace

import pytest

from evosearch.errors import InfeasibleBudget, InputError
from evosearch.latency.model import LatencyModel
from evosearch.space.budget import Bound, Budget, BudgetRequest
from evosearch.space.cost import Cost, format_time
from evosearch.space.costform import LatencyTerm, Monomial
from evosearch.space.text import load_space, space_to_toml
from evosearch.study.timing import Conditions, Timing
from tests.toys import toy_space

HERE = Conditions(device="abacus", runtime="eager", batch=64, threads=1, versions={"torch": "2"})
TERMS = (
    LatencyTerm(name="overhead", picoseconds=(Monomial(500_000),)),
    LatencyTerm(name="second", picoseconds=(Monomial(10_000, ("stem", "stream")),)),
)
BASE = Cost(macs=100, params=100, activations=100, latency=10_000_000_000)


def toy_model(**changes: object) -> LatencyModel:
    model = LatencyModel(
        space_digest=toy_space().digest,
        conditions=HERE,
        base_picoseconds=980_000,
        terms=TERMS,
        steps={"inner": 4},
        fitted=40,
        validated=20,
        median_error=0.02,
        worst_error=0.05,
        noise=0.03,
    )
    return replace(model, **changes)  # type: ignore[arg-type]


def test_a_timed_space_knows_its_latency(tmp_path):
    space = toy_model().timed(toy_space())
    assert space.base_cost.latency == 500_000 + 10_000 * 6 * 8
    assert space.smallest_cost.latency == 510_000
    assert space.groups[2].legal_widths() == (4, 8, 12)
    (tmp_path / "space.toml").write_text(space_to_toml(space))
    assert load_space(tmp_path / "space.toml") == space
    assert toy_space().base_cost.latency == 0


def test_a_model_is_of_one_space() -> None:
    with pytest.raises(InputError, match="another search space"):
        toy_model(space_digest="0").timed(toy_space())


def test_a_model_on_disk(tmp_path) -> None:
    toy_model().save(tmp_path / "latency.json")
    assert LatencyModel.load(tmp_path / "latency.json") == toy_model()


def test_another_device_is_refused_and_both_are_named() -> None:
    there = replace(HERE, device="slide rule")
    with pytest.raises(InputError, match=r"on abacus; this is .* on slide rule"):
        HERE.require(there)
    HERE.require(replace(HERE))


def test_a_budget_finer_than_the_noise_is_refused() -> None:
    model = toy_model()
    with pytest.raises(InputError, match=r"saves 2\.0%.* known to ±3\.0% only"):
        model.require_finer(Budget.exactly(latency=960_400))
    model.require_finer(Budget.exactly(latency=900_000))
    model.require_finer(Budget.exactly(macs=3))


@pytest.mark.parametrize(
    ("text", "picoseconds"),
    [("3.5ms", 3_500_000_000), ("60%", 6_000_000_000), ("900 us", 900_000_000), ("0.001s", 10**9)],
)
def test_a_latency_budget(text: str, picoseconds: int) -> None:
    budget = BudgetRequest.of(latency=text).resolve(BASE)
    assert budget.bounds["latency"] == Bound(low=picoseconds, high=picoseconds)
    assert budget.relative_latency == ("%" in text)
    assert budget.resource.name == "latency"
    assert Budget.from_json(budget.to_json()) == budget


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("3.5", "its unit"),
        ("-1ms", "its unit"),
        ("fast", "its unit"),
        ("0%", "must be positive"),
        ("20ms", "more than the base network's 10 ms"),
        ("70%..30%", "runs backwards"),
        ("30%..", "both shares, or both amounts"),
        ("4ms..70%", "both shares, or both amounts"),
    ],
)
def test_what_is_no_latency_budget(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        BudgetRequest.of(latency=text).resolve(BASE)


def test_latency_holds_beside_flops() -> None:
    budget = BudgetRequest.of(latency="50%", flops="80").resolve(BASE)
    assert budget.violation(replace(BASE, macs=40, latency=5 * 10**9)) == 0
    assert budget.violation(replace(BASE, macs=40)) == 1.0
    assert BASE.relative_to(BASE)["latency"] == 1.0


def test_a_range_of_latencies() -> None:
    budget = BudgetRequest.of(latency="4ms..7ms", params="50%").resolve(BASE)
    assert budget.bounds["latency"] == Bound(low=4 * 10**9, high=7 * 10**9)
    assert not budget.relative_latency
    assert budget.at(0.5).bounds["latency"].high == 5_500_000_000
    shares = BudgetRequest.of(latency="40%..70%").resolve(BASE)
    assert shares == replace(
        BudgetRequest.of(latency="4ms..7ms").resolve(BASE), relative_latency=True
    )


def test_with_an_accuracy_drop_the_latency_is_minimised_and_else_the_flops() -> None:
    fastest = BudgetRequest.of(latency="100%", accuracy_drop=1.0).resolve(BASE, 0.9)
    assert list(fastest.bounds) == ["latency"]
    assert (fastest.shrunk, fastest.resource.name) == ("latency", "latency")
    assert fastest.least_accuracy == pytest.approx(0.89)
    small = BudgetRequest.of(params="50%", accuracy_drop=1.0).resolve(BASE, 0.9)
    assert list(small.bounds) == ["macs", "params"]
    assert small.shrunk == "macs"


def test_all_of_the_time_is_a_budget_only_where_an_accuracy_is_kept() -> None:
    model = toy_model()
    whole = Budget.exactly(latency=model.base_picoseconds)
    with pytest.raises(InputError, match="finer than the noise"):
        model.require_finer(whole)
    model.require_finer(replace(whole, least_accuracy=0.9))
    with pytest.raises(InputError, match="finer than the noise"):
        model.require_finer(replace(Budget.exactly(latency=960_400), least_accuracy=0.9))


def test_what_is_out_of_reach_says_what_holds_it_up() -> None:
    space = toy_model().timed(toy_space())
    with pytest.raises(InfeasibleBudget, match=r"510?.* held up by overhead 0\.5 us"):
        space.require_reachable(Budget.exactly(latency=505_000))


def test_times_have_units() -> None:
    shown = [format_time(x) for x in (2.5e12, 3.52e9, 12_345_678)]
    assert shown == ["2.5 s", "3.52 ms", "12.3 us"]


def test_a_timing_says_what_it_knows() -> None:
    timing = Timing(
        seconds=0.03, low=0.029, high=0.031, ratio=0.5, ratio_low=0.48, ratio_high=0.52,
        base_seconds=0.06, rounds=15,
    )  # fmt: skip
    assert timing.spread == pytest.approx(0.04)
    assert str(timing).startswith("30 ms, 50.0% of the base network's 60 ms (95 % interval 48.0%")
