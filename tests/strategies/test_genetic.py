"""The genetic algorithm finds fronts that brute force or arithmetic knows."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import moocore
import numpy as np
import pytest

from evosearch.space.budget import Bound, Budget
from evosearch.space.costform import CostTerm, Monomial
from evosearch.space.knowledge import Knowledge, SensitivityCurve
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import Problem
from evosearch.strategies.fixed_plans import random_mask
from evosearch.strategies.genetic import Genetic, NsgaConfig
from evosearch.strategies.initial import served_range
from evosearch.strategies.two_step import TwoStep
from evosearch.study.front import ParetoFront
from evosearch.study.trial import Proposal, Rung, Trial, TrialState
from tests.strategies.problems import budget_of, chain, knowledge_of, outcome

Loss = Callable[[Mask], float]
SPACE = chain([16, 21, 12, 18], min_keep=2)
KNOWLEDGE = knowledge_of(SPACE, seed=1)
BUDGET = budget_of(SPACE, macs=(0.25, 0.7))


def genetic(
    space: SearchSpace = SPACE,
    budget: Budget = BUDGET,
    knowledge: Knowledge = KNOWLEDGE,
    seed: int = 0,
    earlier: tuple[Trial, ...] = (),
    **settings: object,
) -> Genetic:
    config = NsgaConfig.model_validate(settings)
    return Genetic(
        Problem(
            space=space,
            budget=budget,
            knowledge=knowledge,
            config=config,
            seed=seed,
            earlier=earlier,
        )
    )


def kept(mask: Mask) -> float:
    return 3.0 - 0.5 * sum(float(bits.mean()) for bits in mask.values())


def search(strategy: Genetic, space: SearchSpace, loss: Loss, count: int) -> list[Trial]:
    trials: list[Trial] = []
    while len(trials) < count:
        first, generation = len(trials), len(trials) // 16
        proposals = enumerate(strategy.ask(), first)
        trials += [outcome(space, p, i, generation, loss(p.mask)) for i, p in proposals]
        strategy.tell(trials[first:])
    return trials


def found(trials: list[Trial], budget: Budget) -> set[tuple[int, float]]:
    low = budget.bounds["macs"].low
    return {(max(t.cost.macs, low), round(t.evaluation.score.loss, 9)) for t in trials}


def test_finds_a_known_front() -> None:
    # Every channel costs one MAC and its own loss, so the best plan of k channels keeps the k
    # dearest. Which group a channel is in does not matter; a search by groups has to find that.
    groups, size = 6, 8
    prices = np.random.default_rng(1).permutation(groups * size) + 1.0
    names = [f"g{i}" for i in range(groups)]
    # Each group keeps its dearest channel, so that no plan of the front breaks the minimum.
    shared = prices.reshape(groups, size)
    space = SearchSpace(
        groups=tuple(ChannelGroup(name, size) for name in names),
        terms=tuple(CostTerm(name=n, macs=(Monomial(1, (n,)),)) for n in names),
    )
    widths = np.array([2, 4, 8])
    knowledge = Knowledge(
        gram={(n, n): np.diag(own / prices.sum()) for n, own in zip(names, shared, strict=True)},
        scores={"l1": dict(zip(names, shared, strict=True))},
        comparable={"l1": {n: own / own.mean() for n, own in zip(names, shared, strict=True)}},
        sensitivity={
            n: SensitivityCurve(widths=widths, loss_increase=1 - widths / 8) for n in names
        },
    )
    budget = Budget.of(macs=Bound(low=16, high=44))
    dropped = np.concatenate([[0], np.cumsum(np.sort(prices))])
    front = {(k, round(1 + dropped[len(prices) - k], 9)) for k in range(16, 45)}
    assert all(own.max() > np.sort(prices)[len(prices) - 16] for own in shared)

    def loss(mask: Mask) -> float:
        return 1 + sum(float(own @ ~mask[name]) for name, own in zip(names, shared, strict=True))

    trials = search(genetic(space, budget, knowledge), space, loss, 320)
    assert front <= found(trials, budget)


@pytest.mark.parametrize("sizes", [(8, 6, 6), (5, 5, 5, 5), (10, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_finds_the_exact_front_of_quadratic_problems(seed: int, sizes: tuple[int, ...]) -> None:
    # 20 channels. The hidden loss is the quadratic form with weights that nothing tells.
    space = chain(list(sizes))
    knowledge = knowledge_of(space, seed)
    theta = np.exp(np.random.default_rng(seed + 99).normal(scale=0.7, size=len(sizes)))

    def loss(mask: Mask) -> float:
        terms = [
            weight * float(~mask[g] @ knowledge.gram[g, g] @ ~mask[g])
            for weight, g in zip(theta, space.sizes, strict=True)
        ]
        return 0.05 + sum(terms)

    budget = budget_of(space, macs=(0.3, 0.9))
    front = brute_front(space, knowledge, theta, budget)
    trials = search(genetic(space, budget, knowledge, seed, population=128), space, loss, 160)
    assert len(front) > 10
    assert front <= found(trials, budget)


def brute_front(
    space: SearchSpace, knowledge: Knowledge, theta: np.ndarray, budget: Budget
) -> set[tuple[int, float]]:
    """Returns the front over all masks: groups do not interact, so each width has its best."""
    best = []
    for group, weight in zip(space.groups, theta, strict=True):
        bits = np.array(list(product([False, True], repeat=group.size)))
        gram = knowledge.gram[group.name, group.name]
        errors = weight * np.einsum("ij,jk,ik->i", 1.0 - bits, gram, 1.0 - bits)
        widths = bits.sum(axis=1)
        best.append({w: errors[widths == w].min() for w in group.legal_widths()})
    plans = np.array(list(product(*best)))
    losses = [0.05 + sum(own[w] for own, w in zip(best, p, strict=True)) for p in plans.tolist()]
    fits = space.fits(plans, budget)
    costs = np.maximum(space.costs(plans)["macs"], budget.bounds["macs"].low)
    points = np.stack([costs, losses], axis=1)[fits]
    front = points[moocore.is_nondominated(points, keep_weakly=False)]
    return {(int(cost), round(loss, 9)) for cost, loss in front}


@pytest.mark.parametrize("seed", range(3))
def test_beats_random_sampling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy = {
        pair: block * np.outer(*[np.exp(0.3 * rng.normal(size=len(block)))] * 2)
        for pair, block in KNOWLEDGE.gram.items()
        if pair[0] == pair[1]
    }
    true, theta = TwoStep(SPACE, noisy), np.exp(rng.normal(size=4))

    def loss(mask: Mask) -> float:
        errors = [float(true.group_errors(g, bits[None])[0]) for g, bits in mask.items()]
        return 0.05 + float(theta @ np.square(errors))

    searched = search(genetic(seed=seed), SPACE, loss, 96)
    drawn = [
        outcome(SPACE, Proposal(mask=mask), i, 0, loss(mask))
        for i in range(96)
        for mask in [random_mask(SPACE, BUDGET.at(rng.random()), rng)]
    ]
    reference = (float(BUDGET.bounds["macs"].high), 1.0)
    volumes = [
        ParetoFront(trials=t, budget=BUDGET, size=RESOURCES["macs"]).hypervolume(reference)
        for t in (searched, drawn)
    ]
    assert volumes[0] > volumes[1]


def test_the_first_round_covers_the_range_with_known_rules() -> None:
    proposals = genetic().ask()
    positions = sorted(p.genome["budget"] for p in proposals)
    assert len({p.mask for p in proposals}) == 16
    assert positions[0] < 0.05
    assert positions[-1] > 0.95
    assert np.diff(positions).max() < 0.2


def test_later_rounds_cover_the_range() -> None:
    trials = search(genetic(), SPACE, kept, 96)
    for first in range(32, 96, 16):
        positions = sorted(t.genome["budget"] for t in trials[first : first + 16])
        assert np.diff([0, *positions, 1]).max() < 0.35


def test_a_single_budget_is_searched_from_half_of_it() -> None:
    single = budget_of(SPACE, macs=0.5)
    served = served_range(SPACE, single)
    assert (served.bounds["macs"].low, served.bounds["macs"].high) == (
        single.bounds["macs"].high // 2,
        single.bounds["macs"].high,
    )
    trials = search(genetic(budget=single), SPACE, kept, 48)
    costs = [t.cost.macs for t in trials]
    assert max(costs) <= single.bounds["macs"].high
    assert min(costs) < 1.1 * served.bounds["macs"].low
    tight = Budget.of(macs=Bound(low=SPACE.smallest_cost.macs, high=SPACE.smallest_cost.macs))
    assert served_range(SPACE, tight) == tight
    assert {p.mask for p in genetic(budget=tight).ask()}  # all that there is, again and again


def test_only_params_limited_means_params_minimised() -> None:
    budget = budget_of(SPACE, params=(0.2, 0.8))
    trials = search(genetic(budget=budget), SPACE, kept, 64)
    sizes = [t.cost.params / budget.bounds["params"].high for t in trials[-16:]]
    assert max(sizes) <= 1
    assert min(sizes) < 0.4


def test_genomes_tell_where_a_proposal_comes_from() -> None:
    trials = search(genetic(), SPACE, kept, 48)
    assert trials[0].genome["parents"] == []
    assert trials[0].genome["pool"]["COST"] == 16
    for trial in trials[32:]:
        assert trial.genome["operator"] in {"cross", "swap", "switch", "resize", "refine"}
        assert 1 <= len(trial.genome["parents"]) <= 2
        assert all(0 <= parent < 32 for parent in trial.genome["parents"])
        assert trial.genome["pool"]["COST"] == 1024
        assert 16 <= trial.genome["pool"]["TWO_STEP"] < 1024


def test_only_full_evaluations_become_parents() -> None:
    strategy = genetic()
    round_ = [outcome(SPACE, p, i, 0, kept(p.mask)) for i, p in enumerate(strategy.ask())]
    whole = round_[0].evaluation
    part = replace(whole, score=replace(whole.score, loss=0.0), rung=Rung.PARTIAL)
    lower = {1: part, 2: None}
    round_ = [
        replace(t, state=TrialState.PRUNED, evaluation=lower[t.number % 3]) if t.number % 3 else t
        for t in round_
    ]
    strategy.tell(round_)
    parents = {n for p in strategy.ask() for n in p.genome["parents"]}
    assert parents <= {0, 3, 6, 9, 12, 15}


def test_earlier_trials_are_parents_and_not_repeated() -> None:
    before = tuple(search(genetic(), SPACE, kept, 64))
    smaller = budget_of(SPACE, macs=(0.25, 0.4))
    strategy = genetic(budget=smaller, earlier=before)
    proposals = strategy.ask()
    assert not {p.mask for p in proposals} & {t.mask for t in before}
    strategy.tell([outcome(SPACE, p, 64 + i, 4, kept(p.mask)) for i, p in enumerate(proposals)])
    numbers = {n for p in strategy.ask() for n in p.genome["parents"]}
    assert any(n < 64 for n in numbers)
    # Those over the budget come last: there are enough that fit it.
    assert all(before[n].violation(smaller) == 0 for n in numbers if n < 64)


def test_the_ladder_is_the_configured_one() -> None:
    ladder = genetic(shares=(0.1, 0.5), survivors=(6, 3), compensated=9).ladder
    assert [(p.rung, p.share, p.survivors) for p in ladder] == [
        (Rung.COMPENSATED, 1.0, 9),
        (Rung.PARTIAL, 0.1, 6),
        (Rung.PARTIAL, 0.5, 3),
    ]
    with pytest.raises(ValueError, match="one entry per partial rung"):
        NsgaConfig(shares=(0.1, 0.5), survivors=(6,))
