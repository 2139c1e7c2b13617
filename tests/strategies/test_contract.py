"""What every strategy promises: legal proposals in the budget, purity, replay, survival."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from evosearch.errors import InfeasibleBudget, InputError
from evosearch.space.budget import Bound, Budget
from evosearch.space.knowledge import Knowledge
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies import STRATEGIES, strategy_class
from evosearch.strategies.base import Strategy
from evosearch.study.trial import Proposal, Rung, Trial, TrialState
from tests.strategies.example import EXAMPLE, example
from tests.strategies.kinds import FIXED, UNDRAWN
from tests.strategies.problems import budget_of, built, chain, knowledge_of, outcome

SPACE = chain([16, 21, 12, 18], min_keep=2)
KNOWLEDGE = knowledge_of(SPACE, seed=1)
BUDGETS = {
    "one": budget_of(SPACE, macs=0.5),
    "range": budget_of(SPACE, macs=(0.25, 0.7)),
    "two": budget_of(SPACE, macs=0.5, params=0.4),
    "two ranges": budget_of(SPACE, macs=(0.3, 0.6), params=(0.25, 0.5)),
    "memory": budget_of(SPACE, memory=(0.4, 0.7), size=0.5),
}
SETTINGS = {
    "rates+spdy": {"sampler": "spdy", "startup": 8, "failures": 4},
    "layerwise": {"genetic": {"population": 16, "patience": 2}},
    "genetic": {"round_size": 4, "seeds": 8, "population": 12, "children": 128},
}
"""Settings that spare the tests time where the quality of channels does not matter; and, behind a
plus, those that make another search of a strategy."""
Loss = Callable[[Mask, int], float | None]

BY_ERRORS = {"policy", "stepwise"}
"""Searching strategies that need two-step errors of channels, and no sensitivities."""
NAMES = (*sorted(STRATEGIES), EXAMPLE, *(name for name in SETTINGS if "+" in name))
REPEATING = {"policy", EXAMPLE}
"""Strategies that propose a plan again where they come to no other."""
LEARNING = set(NAMES) - FIXED - {"random"}
"""Strategies whose asks depend on outcomes."""

pytestmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def _example_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, EXAMPLE, example())


def build(name: str, budget: Budget, seed: int = 0, **settings: object) -> Strategy:
    settings = SETTINGS.get(name, {}) | settings
    return built(kind_of(name), SPACE, budget, KNOWLEDGE, seed=seed, **settings)


def kind_of(name: str) -> type[Strategy]:
    return STRATEGIES[name.partition("+")[0]]


def ragged(mask: Mask, number: int) -> float:
    """A loss that falls with what is kept, and that no plan predicts."""
    kept = sum(float(bits.mean()) for bits in mask.values())
    return 3.0 - 0.5 * kept + int(mask.key[:4], 16) / 2**17


def constant(mask: Mask, number: int) -> float:
    return 1.0


def failing_now_and_then(mask: Mask, number: int) -> float | None:
    return None if number % 3 == 0 else ragged(mask, number)


def failing(mask: Mask, number: int) -> None:
    return None


def rounds_of(strategy: Strategy, rounds: int, loss: Loss) -> list[list[Trial]]:
    """Returns the rounds that a strategy has asked for and was told, until it has no others."""
    told: list[list[Trial]] = []
    for generation in range(rounds):
        first = sum(map(len, told))
        trials = [
            outcome(SPACE, proposal, number, generation, loss(proposal.mask, number))
            for number, proposal in enumerate(strategy.ask(), first)
        ]
        if not trials:
            break
        strategy.tell(trials)
        told.append(trials)
    return told


def require_whole(name: str, told: list[list[Trial]], round_size: int) -> None:
    """Checks that rounds have their size, but for the last one where a plan per budget is all."""
    sizes = [len(trials) for trials in told]
    if name in UNDRAWN and sizes[-1] < round_size:
        sizes.pop()
    assert set(sizes) <= {round_size}


def stored(trial: Trial) -> Trial:
    """Returns the trial as a study on disk gives it back."""
    genome = json.loads(json.dumps(dict(trial.genome)))
    mask = Mask.from_json(json.loads(json.dumps(trial.mask.to_json())), SPACE.sizes)
    return Trial(**{**vars(trial), "genome": genome, "mask": mask})


def content(proposals: list[Proposal]) -> list[tuple[str, str]]:
    return [(p.mask.key, json.dumps(dict(p.genome), sort_keys=True)) for p in proposals]


@pytest.mark.parametrize("budget", BUDGETS)
def test_proposals_are_legal_and_within_the_budget(name: str, budget: str) -> None:
    strategy = build(name, BUDGETS[budget])
    told = rounds_of(strategy, 5, ragged)
    require_whole(name, told, 4)
    for trials in told:
        for trial in trials:
            SPACE.check(trial.mask)
            assert trial.violation(BUDGETS[budget]) == 0
            # The point of the range that it was made for is met too.
            assert trial.violation(BUDGETS[budget].at(trial.genome["budget"])) == 0


def test_budgets_of_a_range_take_turns(name: str) -> None:
    if name not in ("rates", "rates+spdy", "layerwise", "policy"):
        pytest.skip("does not serve some budgets in turn")
    told = rounds_of(build(name, BUDGETS["range"]), 5, ragged)
    positions = [trial.genome["budget"] for trials in told for trial in trials]
    assert positions == [0.0, 0.25, 0.5, 0.75, 1.0] * 4
    used = [
        t.cost.macs / BUDGETS["range"].at(t.genome["budget"]).bounds["macs"].high for t in told[-1]
    ]
    assert min(used) > 0.8
    single = rounds_of(build(name, BUDGETS["one"]), 2, ragged)
    assert {trial.genome["budget"] for trials in single for trial in trials} == {1.0}


@pytest.mark.parametrize("round_size", [1, 3, 7])
def test_rounds_have_the_configured_size(name: str, round_size: int) -> None:
    strategy = build(name, BUDGETS["range"], round_size=round_size)
    require_whole(name, rounds_of(strategy, 4, ragged), round_size)


def test_asking_is_pure(name: str) -> None:
    strategy = build(name, BUDGETS["range"])
    for generation in range(5):
        first = strategy.ask()
        assert content(strategy.ask()) == content(first)
        numbered = enumerate(first, 4 * generation)
        strategy.tell([outcome(SPACE, p, i, generation, ragged(p.mask, i)) for i, p in numbered])


@pytest.mark.parametrize("loss", [ragged, constant, failing_now_and_then, failing])
def test_a_told_again_strategy_asks_the_same(name: str, loss: Loss) -> None:
    original = build(name, BUDGETS["range"])
    told = rounds_of(original, 5, loss)
    again = build(name, BUDGETS["range"])
    for trials in told:
        again.tell([stored(trial) for trial in trials])
    assert content(again.ask()) == content(original.ask())


@pytest.mark.parametrize("loss", [ragged, constant])
@pytest.mark.parametrize("budget", ["one", "range"])
def test_seeds_decide(name: str, budget: str, loss: Loss) -> None:
    def masks(seed: int) -> list[str]:
        told = rounds_of(build(name, BUDGETS[budget], seed), 4, loss)
        return [trial.mask.key for trials in told for trial in trials]

    first = masks(0)
    assert masks(0) == first
    assert (masks(1) == first) == (name in UNDRAWN)


@pytest.mark.parametrize("loss", [failing_now_and_then, failing])
def test_failures_are_survived_and_move_the_search_on(name: str, loss: Loss) -> None:
    told = rounds_of(build(name, BUDGETS["one"]), 6, loss)
    assert any(trial.evaluation is None for trials in told[-2:] for trial in trials)
    # A plan per budget leaves few under a small network's single budget.
    least = 4 if name in FIXED else 12
    assert len({trial.mask for trials in told for trial in trials}) > least


def test_pruned_trials_are_survived(name: str) -> None:
    # A climb that ended on held-out images leaves an evaluation, one that ended before none.
    def pruned(trial: Trial) -> Trial:
        assert trial.evaluation is not None
        part = replace(trial.evaluation, rung=Rung.PARTIAL) if trial.number % 2 else None
        return replace(trial, state=TrialState.PRUNED, evaluation=part)

    strategy, again = (build(name, BUDGETS["range"]) for _ in range(2))
    masks = set()
    for generation in range(6):
        numbered = enumerate(strategy.ask(), 4 * generation)
        round_ = [outcome(SPACE, p, i, generation, ragged(p.mask, i)) for i, p in numbered]
        round_ = [*round_[:1], *map(pruned, round_[1:])]
        masks |= {trial.mask for trial in round_}
        strategy.tell(round_)
        again.tell([stored(trial) for trial in round_])
    assert content(again.ask()) == content(strategy.ask())
    assert len(masks) > (4 if name in FIXED else 16)


def test_failures_are_no_free_pass(name: str) -> None:
    if name not in LEARNING:
        pytest.skip("asks the same whatever came of it")
    if name == "rates+spdy":
        pytest.skip("a failure counts as any trial that brought no gain; see test_spdy")
    # What is asked after a failure is not what is asked after a success.
    first, second = build(name, BUDGETS["one"]), build(name, BUDGETS["one"])
    rounds_of(first, 5, ragged)
    rounds_of(second, 5, failing_now_and_then)
    assert content(first.ask()) != content(second.ask())


def test_proposals_seldom_repeat(name: str) -> None:
    rounds = rounds_of(build(name, BUDGETS["range"]), 10, ragged)
    told = [trial for trials in rounds for trial in trials]
    repeated = len(told) - len({trial.mask for trial in told})
    assert repeated <= (2 if name in REPEATING else 0)
    assert len(told) == 40 or name in UNDRAWN


@pytest.mark.parametrize("range_", [False, True])
@pytest.mark.parametrize("loss", [1.0, None])
def test_a_tiny_space_is_tried_to_its_end(name: str, range_: bool, loss: float | None) -> None:
    space = chain([2, 3])
    kind = kind_of(name)
    own = SETTINGS[name] if "+" in name else {}
    budget = budget_of(space, macs=(0.3, 0.6) if range_ else 0.6)
    strategy = built(kind, space, budget, knowledge_of(space, seed=0), **own)
    size, masks = kind.Config().round_size, []
    for generation in range(12):
        proposals = strategy.ask()
        trials = [
            outcome(space, p, len(masks) + i, generation, loss) for i, p in enumerate(proposals)
        ]
        assert all(t.violation(budget.at(t.genome["budget"])) == 0 for t in trials)
        masks += [proposal.mask for proposal in proposals]
        strategy.tell(trials)
        if len(proposals) < size:
            break
    assert content(strategy.ask()) == [] or name in REPEATING
    whole = list_masks(space, budget)
    if name in ("random", "genetic"):
        assert sorted(m.key for m in masks) == sorted(m.key for m in whole)
    elif name in ("rates", "rates+spdy", "layerwise"):
        # One mask of each plan; the first plans of budgets may be the same.
        plans = {tuple(mask.widths.items()) for mask in whole}
        assert {tuple(mask.widths.items()) for mask in masks} == plans
        assert len(masks) <= len(plans) + 4 * range_
    elif name in UNDRAWN:
        assert len(set(masks)) == len(masks) >= 1
    else:
        assert len(masks) == 12 * size


def list_masks(space: SearchSpace, budget: Budget) -> list[Mask]:
    """Returns all legal masks within the upper end of a budget, from the definition."""
    sides = [
        [np.array(bits) for bits in product([False, True], repeat=group.size) if any(bits)]
        for group in space.groups
    ]
    masks = [Mask(dict(zip(space.sizes, bits, strict=True))) for bits in product(*sides)]
    return [mask for mask in masks if budget.violation(space.cost(mask)) == 0]


def test_learning_beats_the_first_plans(name: str) -> None:
    if name not in LEARNING:
        pytest.skip("does not learn")
    if name == "stepwise":
        pytest.skip("looks for smaller networks, not for better ones; see test_stepwise")
    # The hidden cost of a channel differs between groups, against what knowledge says.
    prices = {"g0": 4.0, "g1": 0.1, "g2": 0.5, "g3": 2.0}

    def loss(mask: Mask, number: int) -> float:
        return 0.1 + sum(prices[g] * float(1 - bits.mean()) ** 2 for g, bits in mask.items())

    told = rounds_of(build(name, BUDGETS["one"]), 12, loss)
    losses = [
        trial.evaluation.score.loss for trials in told for trial in trials if trial.evaluation
    ]
    assert min(losses) < 0.9 * min(losses[:2])


def test_an_unreachable_budget_is_refused(name: str) -> None:
    least = SPACE.smallest_cost.macs
    with pytest.raises(InfeasibleBudget, match="smallest reachable network"):
        build(name, Budget.of(macs=Bound(low=least - 1, high=SPACE.base_cost.macs)))


@pytest.mark.parametrize("part", ["gram", "sensitivity"])
def test_missing_knowledge_is_named(name: str, part: str) -> None:
    kind = kind_of(name)
    if name not in LEARNING - {EXAMPLE}:
        pytest.skip("reads scores only; see test_baselines")
    if part == "sensitivity" and name in BY_ERRORS:
        pytest.skip("reads no sensitivities")
    parts = vars(KNOWLEDGE) | {
        part: {k: v for k, v in getattr(KNOWLEDGE, part).items() if "g2" not in (k, k[0])}
    }
    with pytest.raises(InputError, match="'g2'"):
        rounds_of(built(kind, SPACE, BUDGETS["one"], Knowledge(**parts)), 2, ragged)


def test_name_and_config(name: str) -> None:
    name = name.partition("+")[0]
    kind = strategy_class(name)
    assert kind is STRATEGIES[name]
    assert kind.name == name
    with pytest.raises(InputError, match=f"did you mean '{name}'"):
        strategy_class(name[:-1])
    with pytest.raises(ValueError, match="Extra inputs"):
        kind.Config.model_validate({"round_sizes": 3})


def test_needs_no_torch(name: str) -> None:
    code = (
        "import sys, numpy as np;"
        "from tests.strategies.example import EXAMPLE, example;"
        "from tests.strategies.problems import *;"
        "from evosearch.strategies import STRATEGIES;"
        "space = chain([6, 6]);"
        f"kind = (STRATEGIES | {{EXAMPLE: example()}})[{name.partition('+')[0]!r}];"
        f"settings = {SETTINGS.get(name, {})!r};"
        "budget, knowledge = budget_of(space, macs=0.6), knowledge_of(space, 0);"
        "strategy = built(kind, space, budget, knowledge, **settings);"
        "size = kind.Config.model_validate(settings).round_size;"
        "print(0 < len(strategy.ask()) <= size, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
    assert done.stderr == ""  # Optuna announces nothing


def test_leaves_global_state_alone(name: str) -> None:
    import optuna

    before, level = np.random.get_state()[1].tolist(), optuna.logging.get_verbosity()  # noqa: NPY002
    rounds_of(build(name, BUDGETS["range"]), 5, ragged)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    assert optuna.logging.get_verbosity() == level
