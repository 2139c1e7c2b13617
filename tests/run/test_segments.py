"""Studies with several budgets: what is reused, what is feasible, and that resuming is equal."""

from dataclasses import replace
from pathlib import Path

import pytest

from evosearch.aims import begin_segment
from evosearch.engine.loop import Limits, Outcome, search
from evosearch.engine.parallel import OneByOne
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.strategies import STRATEGIES
from evosearch.study.networks import NamedNetwork
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import STUDY_FILE, Study
from tests.run.test_session import SPACE, builder, header
from tests.strategies.kinds import UNDRAWN
from tests.toys import ToyEvaluator, comparable

TIGHT = BudgetRequest.of(flops="25%..40%").resolve(SPACE.base_cost)


def go(folder: Path, strategy: str, trials: int, evaluator: ToyEvaluator | None = None) -> Study:
    study = Study.open_for_appending(folder)
    outcome = search(
        study=study,
        space=SPACE,
        build=builder(strategy),
        executor=OneByOne(evaluator or ToyEvaluator()),
        store=ScoreStore(folder / "scores"),
        limits=Limits(trials=trials),
    )
    # What draws nothing has as many plans as its budgets give, and ends with the last of them.
    all_tried = strategy in UNDRAWN and outcome is Outcome.NOTHING_NEW
    assert outcome is Outcome.TRIALS or all_tried
    return study


def begun(folder: Path, strategy: str) -> Path:
    folder.mkdir()
    Study.create(folder, header(strategy))
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_budget_reuses_what_was_evaluated(strategy: str, tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", strategy)
    before = go(folder, strategy, 30).trials
    study = Study.open_for_appending(folder)
    study.begin_segment(TIGHT, TIGHT)
    evaluator = ToyEvaluator()
    after = go(folder, strategy, 60, evaluator).trials
    assert len(after) > len(before)
    assert comparable(after[: len(before)]) == comparable(before)
    assert all(trial.violation(TIGHT) == 0 for trial in after[len(before) :])
    assert not {trial.mask for trial in before} & set(evaluator.asked)
    # The front is what the new budget allows, old trials included.
    front = Study.open(folder).front()
    assert all(trial.violation(TIGHT) == 0 for trial in front.members)
    complete = [t for t in before if t.is_complete and t.duplicate_of is None]
    fitting = [t for t in complete if t.violation(TIGHT) == 0]
    assert {t.number for t in fitting} <= {t.number for t in front.candidates}


@pytest.mark.parametrize("strategy", ["rates", "genetic"])
def test_a_study_of_two_budgets_cut_anywhere_resumes_to_the_same(
    strategy: str, tmp_path: Path
) -> None:
    folder = begun(tmp_path / "whole", strategy)
    go(folder, strategy, 22)
    Study.open_for_appending(folder).begin_segment(TIGHT, TIGHT)
    whole = go(folder, strategy, 45)
    lines = (folder / STUDY_FILE).read_bytes().splitlines(keepends=True)
    for kept in (22, 23, 30, 44):
        # The last `45 - kept` trials go; what began the segment stays.
        cut = tmp_path / f"cut-{kept}"
        cut.mkdir()
        (cut / STUDY_FILE).write_bytes(b"".join(lines[: len(lines) - (45 - kept)]))
        assert comparable(go(cut, strategy, 45).trials) == comparable(whole.trials)


def test_an_empty_segment_is_replaced_and_the_study_says_so_on_disk(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", "rates")
    study = Study.open_for_appending(folder)
    study.begin_segment(TIGHT, TIGHT)
    assert [s.first for s in study.segments] == [0]
    go(folder, "rates", 8)
    study = Study.open_for_appending(folder)
    other = Budget.exactly(macs=TIGHT.bounds["macs"].high)
    study.begin_segment(other, other)
    assert Study.open(folder).segments == study.segments
    assert [s.first for s in study.segments] == [0, 8]
    assert Study.open(folder).budget == other


def dropping(folder: Path, drop: float, strategy: str = "rates") -> Path:
    """Begins a study that may lose points of accuracy."""
    toys = ToyEvaluator(failing=False)
    full = SPACE.full_mask()
    base = NamedNetwork(
        name="base", mask=full, cost=SPACE.base_cost, evaluation=toys.evaluation(full)
    )
    budget = BudgetRequest.of(accuracy_drop=drop).resolve(
        SPACE.base_cost, base.evaluation.score.accuracy
    )
    folder.mkdir()
    study = Study.create(folder, replace(header(strategy), budget=budget, references=(base,)))
    begin_segment(study, budget, SPACE.smallest_cost)
    return folder


@pytest.mark.parametrize("strategy", ["rates", "genetic", "layerwise", "policy", "stepwise"])
def test_an_accuracy_drop_finds_a_small_network_that_keeps_it(
    strategy: str, tmp_path: Path
) -> None:
    folder = dropping(tmp_path / "run", 30.0, strategy)
    study = go(folder, strategy, 120, ToyEvaluator(failing=False))
    smallest = study.front().smallest()
    assert smallest.evaluation is not None
    assert smallest.evaluation.score.accuracy >= 0.70
    assert len(study.segments) > 3
    # A uniform plan of that accuracy is larger.
    assert smallest.cost.macs < 0.70**2 * SPACE.base_cost.macs
    sizes = [
        segment.aim.bounds["macs"].high for segment in study.segments if segment.aim.bounds["macs"]
    ]
    assert sizes[0] == round(
        0.75 * SPACE.base_cost.macs
    )  # a quarter off, with all of the drop left
    assert study.budget.least_accuracy == pytest.approx(0.70)


def test_an_accuracy_drop_cut_anywhere_resumes_to_the_same(tmp_path: Path) -> None:
    whole = go(dropping(tmp_path / "whole", 20.0), "rates", 40)
    for stops in ([12, 40], [5, 13, 24, 25, 40]):
        folder = dropping(tmp_path / f"cut-{len(stops)}", 20.0)
        for stop in stops:
            study = go(folder, "rates", stop)
        assert comparable(study.trials) == comparable(whole.trials)
        assert study.segments == whole.segments


def test_a_study_killed_between_a_round_and_its_next_segment_goes_on(tmp_path: Path) -> None:
    folder = dropping(tmp_path / "whole", 20.0)
    whole = go(folder, "rates", 20)
    lines = (folder / STUDY_FILE).read_bytes().splitlines(keepends=True)
    second = next(
        i for i, line in enumerate(lines) if line.count(b'"first"') == 2
    )  # where the second segment begins
    (folder / STUDY_FILE).write_bytes(b"".join(lines[:second]))
    assert len(Study.open(folder).trials) == 12
    again = go(folder, "rates", 20)
    assert comparable(again.trials) == comparable(whole.trials)
    assert again.segments == whole.segments
