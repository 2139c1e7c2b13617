"""The strategies that do not search: which budget each trial takes, and what they read."""

import numpy as np
import pytest

from evosearch.errors import InputError
from evosearch.space.budget import Bound, Budget
from evosearch.space.knowledge import Knowledge
from evosearch.space.mask import Mask
from evosearch.strategies import STRATEGIES
from evosearch.strategies.base import Problem, Strategy
from evosearch.strategies.fixed_plans import (
    global_mask,
    relative_mask,
    triangular_mask,
    uniform_mask,
)
from evosearch.study.trial import Proposal, Trial
from tests.strategies.problems import budget_of, chain, knowledge_of, outcome

SPACE = chain([16, 21, 12, 18], min_keep=2)
RNG = np.random.default_rng(7)
SCORES = knowledge_of(SPACE, seed=1).scores | {
    "fpgm": {name: RNG.random(size) for name, size in SPACE.sizes.items()}
}
KNOWLEDGE = Knowledge(
    gram={},
    scores=SCORES,
    comparable={
        criterion: {group: own / own.mean() for group, own in scores.items()}
        for criterion, scores in SCORES.items()
    },
)
"""No Gram matrices and no sensitivity: plans need scores only."""
RANGE = budget_of(SPACE, macs=(0.25, 0.7))
PLANS = {
    "uniform": uniform_mask,
    "global": global_mask,
    "triangular": triangular_mask,
    "relative": relative_mask,
}


def plan(name: str, budget: Budget, criterion: str = "l1") -> Mask:
    read = KNOWLEDGE.comparable if name == "global" else KNOWLEDGE.scores
    return PLANS[name](SPACE, budget, read[criterion])


def build(
    name: str, budget: Budget, earlier: tuple[Trial, ...] = (), **settings: object
) -> Strategy:
    kind = STRATEGIES[name]
    return kind(
        Problem(
            space=SPACE,
            budget=budget,
            knowledge=KNOWLEDGE,
            config=kind.Config.model_validate(settings),
            seed=0,
            earlier=earlier,
        )
    )


def trials_of(proposals: list[Proposal]) -> list[Trial]:
    return [outcome(SPACE, p, number, 0, 1.0) for number, p in enumerate(proposals)]


@pytest.mark.parametrize("name", PLANS)
def test_budgets_fill_the_range(name: str) -> None:
    strategy = build(name, RANGE, round_size=7)
    proposals = strategy.ask()
    strategy.tell(trials_of(proposals))
    proposals += strategy.ask()[:2]
    in_turn = [1.0, 0.0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875, 0.0625, 0.5625, 0.3125]
    plans = [plan(name, RANGE.at(x)) for x in in_turn]
    positions = [x for i, x in enumerate(in_turn) if plans[i] not in plans[:i]][:9]
    assert [p.genome for p in proposals] == [
        {"operator": name, "budget": position} for position in positions
    ]
    assert [p.mask for p in proposals] == [plan(name, RANGE.at(x)) for x in positions]


@pytest.mark.parametrize("name", PLANS)
def test_a_single_budget_is_served_from_half_of_it(name: str) -> None:
    budget = budget_of(SPACE, macs=0.6, params=0.8)
    assert budget.bounds["macs"] is not None
    assert budget.bounds["params"] is not None
    half = {
        "macs": Bound(low=(budget.bounds["macs"].high + 1) // 2, high=budget.bounds["macs"].high),
        "params": Bound(
            low=(budget.bounds["params"].high + 1) // 2, high=budget.bounds["params"].high
        ),
    }
    masks = [p.mask for p in build(name, budget).ask()]
    assert masks == [plan(name, Budget.of(**half).at(x)) for x in (1, 0, 0.5, 0.25)]
    assert masks[0] == plan(name, budget)


@pytest.mark.parametrize("name", PLANS)
def test_half_of_a_small_budget_may_be_out_of_reach(name: str) -> None:
    least = SPACE.smallest_cost.macs
    strategy = build(name, Budget.of(macs=Bound(low=least + 1, high=least + 1)))
    assert {SPACE.cost(p.mask).macs for p in strategy.ask()} == {least}


@pytest.mark.parametrize("name", PLANS)
def test_the_criterion_decides_on_channels(name: str) -> None:
    mask = build(name, RANGE, criterion="fpgm").ask()[0].mask
    assert mask == plan(name, RANGE.at(1), "fpgm")
    assert mask != build(name, RANGE).ask()[0].mask
    with pytest.raises(InputError, match="unknown criterion 'fpmg': did you mean 'fpgm'"):
        build(name, RANGE, criterion="fpmg")


def test_random_needs_no_scores() -> None:
    assert len(build("random", RANGE, criterion="fpmg").ask()) == 4


@pytest.mark.parametrize("name", ["random", *PLANS])
def test_earlier_trials_advance_only_what_is_drawn(name: str) -> None:
    def masks(strategy: Strategy) -> list[Mask]:
        return [p.mask for p in strategy.ask()]

    earlier = tuple(trials_of(build(name, budget_of(SPACE, macs=0.4)).ask()))
    fresh, later = build(name, RANGE), build(name, RANGE, earlier)
    assert (masks(later) == masks(fresh)) == (name in PLANS)


def test_random_draws_a_trial_by_its_number() -> None:
    one, many = build("random", RANGE, round_size=1), build("random", RANGE, round_size=4)
    proposals = []
    for _ in range(4):
        proposals += one.ask()
        one.tell(trials_of(one.ask()))
    assert proposals == many.ask()
