"""The strategy `stepwise`: bisection by hand, limits, rounds of any size, and where it ends."""

import numpy as np
import pytest

from evosearch.space.budget import Budget
from evosearch.strategies.base import Problem
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.strategies.stepwise import Stepwise, StepwiseConfig
from evosearch.strategies.two_step import TwoStep
from evosearch.study.trial import Trial
from tests.strategies.problems import budget_of, built, chain, knowledge_of, outcome

SPACE = chain([8, 8, 8])
KNOWLEDGE = knowledge_of(SPACE, 5)
WHOLE = Budget.exactly(macs=SPACE.base_cost.macs)
"""A budget of 100 %: the search begins from the base network."""


def build(budget=WHOLE, space=SPACE, **settings: object) -> Stepwise:
    return built(Stepwise, space, budget, KNOWLEDGE, **settings)


def search(strategy: Stepwise, rounds: int, loss) -> list[Trial]:
    told: list[Trial] = []
    for generation in range(rounds):
        numbered = enumerate(strategy.ask(), len(told))
        trials = [
            outcome(SPACE, p, i, generation, loss(tuple(SPACE.widths(p.mask).tolist())))
            for i, p in numbered
        ]
        strategy.tell(trials)
        told += trials
    return told


def widths(told: list[Trial]) -> list[list[int]]:
    return [SPACE.widths(trial.mask).tolist() for trial in told]


def above(*least: int):
    """A loss of 1 where every width is at least so much, of 100 else."""
    return lambda own: 1.0 if all(w >= x for w, x in zip(own, least, strict=True)) else 100.0


def test_one_at_a_time_it_is_bisection_by_hand() -> None:
    told = search(build(round_size=1), 10, above(3, 8, 1))
    assert widths(told) == [
        [8, 8, 8],
        [4, 8, 8],  # of 1 to 8; passes
        [2, 8, 8],  # of 1 to 4; does not
        [3, 8, 8],  # between; passes and stays
        [3, 4, 8],  # does not, and nothing else does
        [3, 6, 8],
        [3, 7, 8],
        [3, 8, 4],  # passes, and so does all below it
        [3, 8, 2],
        [3, 8, 1],
    ]
    assert [t.genome["operator"] for t in told] == ["uniform"] + ["bisection"] * 9
    assert [t.genome["group"] for t in told[1:]] == ["g0"] * 3 + ["g1"] * 3 + ["g2"] * 3


@pytest.mark.parametrize("size", [2, 3, 7])
def test_rounds_of_any_size_walk_the_same_way(size: int) -> None:
    """What one at a time needs, a round asks for as well, and it needs no more rounds."""
    loss = above(3, 8, 1)
    alone = widths(search(build(round_size=1), 10, loss))
    together = widths(search(build(round_size=size), 9, loss))
    assert all(own in together for own in alone)
    assert together.index([3, 8, 1]) // size < alone.index([3, 8, 1])


def test_limits_rise_by_equal_steps() -> None:
    """Each channel that goes costs nearly 1 % of the first loss: 9 % are 3 % for each group."""
    told = search(build(round_size=1, rise=0.09), 10, lambda own: 1 + 0.0099 * (24 - sum(own)))
    assert widths(told) == [
        [8, 8, 8],
        [4, 8, 8],  # 1.0396 is over 1.03
        [6, 8, 8],
        [5, 8, 8],  # 1.0297 is not
        [5, 4, 8],  # over 1.06
        [5, 6, 8],
        [5, 5, 8],
        [5, 5, 4],  # over 1.09
        [5, 5, 6],
        [5, 5, 5],
    ]


def test_the_next_walk_begins_at_the_end_of_the_last_and_may_lose_twice_as_much() -> None:
    told = search(build(round_size=1, rise=0.09), 25, lambda own: 1 + 0.0099 * (24 - sum(own)))
    second = [own for t, own in zip(told, widths(told), strict=True) if t.genome.get("walk") == 1]
    assert second
    assert all(max(own) <= 5 for own in second)
    # 13 channels less than at first are within 6 % of 1.0891, and would not be within 3 %.
    assert [1, 2, 5] in second


def test_a_failure_passes_no_limit_and_a_failed_start_has_none() -> None:
    told = search(build(round_size=1), 4, lambda own: None if own[0] == 4 else 1.0)
    assert widths(told) == [[8, 8, 8], [4, 8, 8], [6, 8, 8], [5, 8, 8]]
    told = search(build(round_size=1), 4, lambda own: None if own == (8, 8, 8) else 50.0)
    assert widths(told) == [[8, 8, 8], [4, 8, 8], [2, 8, 8], [1, 8, 8]]
    told = search(build(round_size=1), 5, lambda own: None if own[0] in (8, 4) else 50.0)
    assert widths(told) == [[8, 8, 8], [4, 8, 8], [6, 8, 8], [5, 8, 8], [5, 4, 8]]


def test_as_many_probes_as_asked() -> None:
    told = search(build(round_size=1, probes=1), 4, lambda own: 1.0)
    assert widths(told) == [[8, 8, 8], [4, 8, 8], [4, 4, 8], [4, 4, 4]]


def test_it_begins_from_the_plan_that_fills_the_budget() -> None:
    budget = budget_of(SPACE, macs=(0.3, 0.7))
    told = search(build(budget), 12, lambda own: float(1 + 24 - sum(own)) ** 2)
    starts = [t for t in told if t.genome["operator"] == "uniform"]
    two_step = TwoStep(SPACE, KNOWLEDGE.gram)
    assert starts[0].genome["budget"] == 1.0
    for trial in starts:
        own = uniform_widths(SPACE, budget.at(trial.genome["budget"]))
        assert trial.mask == two_step.mask(own)
    assert all((np.array(own) <= widths(told)[0]).all() for own in widths(told))


def test_what_another_budget_was_told_is_not_asked_again() -> None:
    told = search(build(round_size=1), 6, above(3, 8, 1))
    config = StepwiseConfig(round_size=1)
    problem = Problem(
        space=SPACE, budget=WHOLE, knowledge=KNOWLEDGE, config=config, seed=0, earlier=told
    )
    again = Stepwise(problem)
    assert widths([outcome(SPACE, p, 6, 0, 1.0) for p in again.ask()]) == [[3, 7, 8]]


def test_at_the_end_the_smallest_network_was_seen_and_nothing_is_asked() -> None:
    strategy = build(round_size=4)
    told = search(strategy, 12, lambda own: 1.0)
    assert [1, 1, 1] in widths(told)
    assert len({trial.mask for trial in told}) == len(told) < 48
    assert strategy.ask() == []
