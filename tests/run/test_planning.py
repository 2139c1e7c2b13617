"""Plans for any budget: what is returned, when it is a prediction, and what a measurement does."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evosearch.errors import InfeasibleBudget, InputError
from evosearch.run.folder import RunFolder
from evosearch.run.planning import pick_plan, plan_at, remember_plan
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.knowledge import Knowledge
from evosearch.space.text import space_to_toml
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from tests.run.test_session import SPACE, go
from tests.toys import ToyEvaluator, toy_knowledge


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished search of the toy space, with what planning reads."""
    return searched(tmp_path / "run", "rates")


def searched(folder: Path, strategy: str, seed: int = 0) -> Path:
    go(folder, strategy, 40, seed=seed)
    RunFolder(folder).space.write_text(space_to_toml(SPACE), encoding="utf-8")
    toy_knowledge().save(RunFolder(folder).knowledge)
    return folder


def budget(percent: float) -> Budget:
    return BudgetRequest.of(flops=f"{percent}%").resolve(SPACE.base_cost)


@pytest.mark.parametrize("percent", [21, 37, 52.5, 69, 90])
def test_every_budget_gets_a_plan_that_fits_it(run: Path, percent: float) -> None:
    plan = plan_at(run, Study.open(run), budget(percent))
    SPACE.check(plan.mask)
    assert budget(percent).violation(plan.cost) == 0
    assert plan.cost == SPACE.cost(plan.mask)
    assert (plan.evaluation is None) == (plan.trial is None)


def test_within_the_searched_range_no_plan_is_worse_than_the_best_trial(run: Path) -> None:
    study = Study.open(run)
    for percent in (33, 45, 60):
        plan = plan_at(run, study, budget(percent))
        fitting = [t for t in study.front().members if t.violation(budget(percent)) == 0]
        best = min(t.evaluation.score.loss for t in fitting if t.evaluation)
        if plan.evaluation is not None:
            assert plan.evaluation.score.loss == best
        else:
            assert plan.prediction is not None
            assert plan.prediction.loss < best


def test_a_trial_that_another_resource_dominates_is_a_plan_too(tmp_path: Path) -> None:
    """Dominated in MACs, but the best of all with so few parameters."""
    run = searched(tmp_path / "run", "random", seed=1)
    study = Study.open(run)
    toys = toy_knowledge()
    Knowledge(gram=toys.gram, scores=toys.scores).save(RunFolder(run).knowledge)
    dominated = study.front().dominated
    least = min(t.cost.params for t in study.front().members)
    params = min(t.cost.params for t in dominated)
    assert params < least
    plan = plan_at(run, study, Budget.exactly(params=least - 1))
    fitting = [t for t in dominated if t.cost.params < least and t.evaluation]
    assert plan.trial == min(fitting, key=lambda t: t.evaluation.score.loss).number


def test_below_all_trials_the_plan_is_decoded_and_a_prediction(run: Path) -> None:
    plan = plan_at(run, Study.open(run), budget(20))
    assert plan.trial is None
    assert plan.evaluation is None
    assert plan.prediction is not None
    assert plan.name == f"plan {plan.mask.key[:8]}"


def test_a_measured_plan_stays_known_and_the_better_network_wins(run: Path) -> None:
    study, toys = Study.open(run), ToyEvaluator(failing=False)
    plan = plan_at(run, study, budget(20))
    remember_plan(run, replace(plan, evaluation=toys.evaluation(plan.mask)))
    again = plan_at(run, study, budget(20))
    assert again.mask == plan.mask
    assert again.evaluation == toys.evaluation(plan.mask)
    assert pick_plan(run, study, plan.name, None) == replace(again, prediction=None)
    with pytest.raises(InputError, match=f"unknown plan .*did you mean '{plan.name}'"):
        pick_plan(run, study, f"{plan.name[:-1]}x", None)
    # A plan that turns out worse than a trial does not win.
    best = plan_at(run, study, budget(50))
    good = toys.evaluation(best.mask)
    bad = replace(good, score=replace(good.score, loss=9.0))
    mask = SPACE.sample(np.random.default_rng(0), budget(50))
    remember_plan(run, NamedNetwork(name="bad", mask=mask, cost=SPACE.cost(mask), evaluation=bad))
    assert plan_at(run, study, budget(50)).mask == best.mask


def test_a_run_without_a_model_answers_with_its_trials(run: Path) -> None:
    toys = toy_knowledge()
    Knowledge(gram=toys.gram, scores=toys.scores).save(RunFolder(run).knowledge)
    plan = plan_at(run, Study.open(run), budget(50))
    assert plan.trial is not None
    with pytest.raises(InputError, match="no trial of this run fits"):
        plan_at(run, Study.open(run), budget(20))


def test_what_cannot_be_is_refused(run: Path) -> None:
    with pytest.raises(InfeasibleBudget, match="smallest reachable"):
        plan_at(run, Study.open(run), Budget.exactly(macs=SPACE.smallest_cost.macs - 1))


def test_picks_by_name_and_number(run: Path) -> None:
    study = Study.open(run)
    front = study.front()
    picked = {pick: pick_plan(run, study, pick, None).trial for pick in (None, "best", "smallest")}
    assert picked == {
        None: front.knee.number,
        "best": front.best().number,
        "smallest": front.members[0].number,
    }
    assert pick_plan(run, study, "3", None).mask == study.trials[3].mask
    assert pick_plan(run, study, "trial 3", None) == pick_plan(run, study, "3", None)
    with pytest.raises(InputError, match="did you mean 'smallest'"):
        pick_plan(run, study, "smalest", None)
    with pytest.raises(InputError, match="trials 0 to 39"):
        pick_plan(run, study, "40", None)
    failed = next(trial.number for trial in study.trials if trial.error)
    with pytest.raises(InputError, match="that trial failed"):
        pick_plan(run, study, str(failed), None)
    with pytest.raises(InputError, match="expected NAME=AMOUNT"):
        pick_plan(run, study, None, "50%")


def test_answers_without_torch(run: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from evosearch.run.planning import pick_plan\n"
        "from evosearch.study.study import Study\n"
        "folder = Path(sys.argv[1])\n"
        "print(pick_plan(folder, Study.open(folder), None, 'flops=37%').cost.macs)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True
    )
    macs, torch_seen = done.stdout.split()
    assert int(macs) <= 0.37 * SPACE.base_cost.macs
    assert torch_seen == "False"
