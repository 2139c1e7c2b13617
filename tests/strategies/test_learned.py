"""The model of the loss: what it predicts, and what it decodes at a budget."""

from dataclasses import replace

import numpy as np
import pytest

from evosearch.errors import InputError
from evosearch.space.knowledge import Array, Knowledge
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies.fixed_plans import random_mask
from evosearch.strategies.learned import LossModel, Weights
from evosearch.strategies.sensitivity import calibrated
from evosearch.strategies.two_step import TwoStep
from evosearch.study.trial import Proposal, Rung, Trial, TrialState
from tests.strategies.problems import budget_of, chain, knowledge_of, outcome

SPACE = chain([16, 21, 12, 18], min_keep=2)
KNOWLEDGE = knowledge_of(SPACE, seed=1)
THETA = np.array([0.3, 2.0, 1.0, 4.0])


def drawn(count: int, seed: int = 0) -> list[Mask]:
    rng = np.random.default_rng(seed)
    budget = budget_of(SPACE, macs=(0.2, 0.9))
    return [random_mask(SPACE, budget.at(rng.random()), rng) for _ in range(count)]


def hidden(mask: Mask, power: float, space: SearchSpace = SPACE) -> float:
    errors = [float(~bits @ KNOWLEDGE.gram[g, g] @ ~bits) for g, bits in mask.items()]
    return 0.2 + float(THETA @ np.power(errors, power))


def trials_of(masks: list[Mask], power: float) -> list[Trial]:
    return [outcome(SPACE, Proposal(mask=m), i, 0, hidden(m, power)) for i, m in enumerate(masks)]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_finds_the_law_behind_the_losses(power: float) -> None:
    model = LossModel(SPACE, KNOWLEDGE)
    weights = model.fit(trials_of(drawn(60), power)).mean()
    assert weights.powers == (0.0, power)
    np.testing.assert_allclose(weights.scale * weights.groups, THETA, rtol=0.15)
    unseen = drawn(50, seed=9)
    predicted = model.predict(model.layout.rows(unseen), weights)
    np.testing.assert_allclose(predicted, [hidden(m, power) for m in unseen], rtol=0.1)


def test_few_trials_rank_better_than_none() -> None:
    model = LossModel(SPACE, KNOWLEDGE)
    unseen = drawn(200, seed=9)
    bits, true = model.layout.rows(unseen), [hidden(m, 1.0) for m in unseen]

    def agreement(trials: list[Trial]) -> float:
        predicted = model.predict(bits, model.fit(trials).mean())
        return float(
            np.corrcoef(np.argsort(np.argsort(predicted)), np.argsort(np.argsort(true)))[0, 1]
        )

    assert agreement(trials_of(drawn(8), 1.0)) > agreement([])
    assert agreement([]) > 0.3


def test_without_trials_features_are_what_rates_allocates_by() -> None:
    model, two_step = LossModel(SPACE, KNOWLEDGE), TwoStep(SPACE, KNOWLEDGE.gram)
    widths = np.array([8, 10, 6, 9])
    mask = two_step.mask(widths)
    expected = 0.0
    for name, width in zip(SPACE.sizes, widths, strict=True):
        curve = two_step.curve(name)
        measured = calibrated(curve, name, KNOWLEDGE.sensitivity)
        at = int(np.flatnonzero(curve.widths == width)[0])
        expected += float(np.sqrt(measured.errors[at] * curve.errors[at] ** 4))
    weights = model.fit([]).mean()
    np.testing.assert_array_equal(weights.groups, np.ones(4))
    np.testing.assert_allclose(model.predict(model.layout.rows([mask]), weights), expected)


def test_only_full_evaluations_count() -> None:
    model, trials = LossModel(SPACE, KNOWLEDGE), trials_of(drawn(30), 1.0)
    whole = trials[0].evaluation
    part = replace(whole, score=replace(whole.score, loss=9.0), rung=Rung.PARTIAL)
    others = [
        replace(trials[0], state=TrialState.PRUNED, evaluation=part),
        replace(trials[1], state=TrialState.PRUNED, evaluation=None),
        replace(trials[2], state=TrialState.FAIL, evaluation=None, error="no"),
    ]
    alone, beside = model.fit(trials).mean(), model.fit([*trials, *others]).mean()
    np.testing.assert_array_equal(alone.groups, beside.groups)


def test_samples_spread_less_the_more_is_known() -> None:
    model = LossModel(SPACE, KNOWLEDGE)

    def spread(count: int) -> float:
        fit, rng = model.fit(trials_of(drawn(count), 1.0)), np.random.default_rng(0)
        return float(np.std([fit.sample(rng).groups for _ in range(50)], axis=0).mean())

    assert spread(80) < 0.5 * spread(0)


def test_weights_stay_positive() -> None:
    # A loss that falls the more is cut of one group: no plan must be led to cut it for that.
    masks = drawn(40)
    losses = [2.0 + 0.5 * float(m["g0"].mean()) - float(m["g1"].mean()) for m in masks]
    trials = [
        outcome(SPACE, Proposal(mask=m), i, 0, x)
        for i, (m, x) in enumerate(zip(masks, losses, strict=True))
    ]
    fit = LossModel(SPACE, KNOWLEDGE).fit(trials)
    assert (fit.mean().groups > 0).all()


@pytest.mark.parametrize("losses", [[], [1.0], [1.0] * 9])
def test_trials_that_say_nothing(losses: list[float]) -> None:
    masks = drawn(len(losses))
    trials = [
        outcome(SPACE, Proposal(mask=m), i, 0, x)
        for i, (m, x) in enumerate(zip(masks, losses, strict=True))
    ]
    model = LossModel(SPACE, KNOWLEDGE)
    predicted = model.predict(model.layout.rows(drawn(5)), model.fit(trials).mean())
    assert np.isfinite(predicted).all()


def test_plans_a_budget_never_searched() -> None:
    model = LossModel(SPACE, KNOWLEDGE)
    weights = model.fit(trials_of(drawn(60), 1.0)).mean()
    for share in (0.25, 0.5, 0.75):
        budget = budget_of(SPACE, macs=share)
        plan = model.plan(weights, budget)
        SPACE.check(plan)
        assert 0.9 < SPACE.cost(plan).macs / budget.bounds["macs"].high <= 1
        rng = np.random.default_rng(0)
        rivals = [hidden(random_mask(SPACE, budget, rng), 1.0) for _ in range(200)]
        assert hidden(plan, 1.0) < min(rivals)


def test_a_group_that_costs_nothing() -> None:
    gram: dict[tuple[str, str], Array] = dict(KNOWLEDGE.gram)
    gram["g2", "g2"] = np.zeros((12, 12))
    knowledge = Knowledge(gram=gram, scores=KNOWLEDGE.scores, sensitivity=KNOWLEDGE.sensitivity)
    model = LossModel(SPACE, knowledge)
    plan = model.plan(Weights(np.ones(4)), budget_of(SPACE, macs=0.5))
    assert plan["g2"].sum() == 2


def test_missing_sensitivity_is_named() -> None:
    with pytest.raises(InputError, match="'g0'"):
        LossModel(SPACE, Knowledge(gram=KNOWLEDGE.gram, scores={}))
