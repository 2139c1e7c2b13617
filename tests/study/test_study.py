"""The study on disk: an Optuna journal that Optuna's own tools open, and its recovery."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evosearch.errors import InputError
from evosearch.run.lock import RunLock
from evosearch.space.budget import BudgetRequest
from evosearch.study.networks import NamedNetwork
from evosearch.study.records import Header
from evosearch.study.study import STUDY_FILE, STUDY_NAME, Study
from evosearch.study.trial import Trial, TrialState
from tests.toys import IDENTITY, ToyEvaluator, comparable, toy_space

SPACE = toy_space()


def make_header(**budget: str) -> Header:
    full = SPACE.full_mask()
    evaluation = ToyEvaluator(failing=False).evaluation(full)
    return Header(
        space_digest=SPACE.digest,
        config_digest="",
        sizes=SPACE.sizes,
        least_widths=dict(zip(SPACE.sizes, SPACE.least_widths.tolist(), strict=True)),
        budget=BudgetRequest.of(**budget).resolve(SPACE.base_cost),
        base_cost=SPACE.base_cost,
        strategy="rates",
        seed=3,
        identity=IDENTITY,
        references=(
            NamedNetwork(name="base", mask=full, cost=SPACE.base_cost, evaluation=evaluation),
        ),
    )


def make_trials(header: Header, count: int) -> list[Trial]:
    rng = np.random.default_rng(0)
    trials = []
    for number in range(count):
        mask = SPACE.sample(rng, header.budget)
        failed = number % 4 == 3
        trials.append(
            Trial(
                number=number,
                generation=number // 2,
                mask=mask,
                genome={"weights": {"stem": 0.1 * number}},
                cost=SPACE.cost(mask),
                state=TrialState.FAIL if failed else TrialState.COMPLETE,
                evaluation=None if failed else ToyEvaluator(failing=False).evaluation(mask),
                error="out of memory" if failed else None,
            )
        )
    return trials


def write(folder: Path, count: int, **budget: str) -> list[Trial]:
    header = make_header(**(budget or {"flops": "60%"}))
    study = Study.create(folder, header)
    trials = make_trials(header, count)
    for trial in trials:
        study.append(trial)
    return trials


def test_trials_and_header_come_back_as_written(tmp_path: Path) -> None:
    trials = write(tmp_path, 9)
    study = Study.open(tmp_path)
    assert comparable(study.trials) == comparable(tuple(trials))
    assert study.header == make_header(flops="60%")


def test_optuna_opens_the_study_as_it_is(tmp_path: Path) -> None:
    trials = write(tmp_path, 8)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / STUDY_FILE)))
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    assert study.metric_names == ["loss", "macs"]
    assert [t.params for t in study.trials] == [trial.mask.widths for trial in trials]
    complete = [t for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert [t.values for t in complete] == [
        [trial.evaluation.score.loss, float(trial.cost.macs)]
        for trial in trials
        if trial.evaluation
    ]
    assert all(t.constraints["macs"] <= 0 for t in study.trials)
    front = {t.number for t in study.best_trials}
    assert front == {trial.number for trial in Study.open(tmp_path).front().members}


def test_params_are_minimised_where_only_they_are_limited(tmp_path: Path) -> None:
    write(tmp_path, 3, params="60%")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / STUDY_FILE)))
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    assert study.metric_names == ["loss", "params"]


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_torn_tail_is_ignored_by_readers_and_cut_before_appending(
    cut: int, tmp_path: Path
) -> None:
    trials = write(tmp_path, 6)
    path = tmp_path / STUDY_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    assert comparable(Study.open(tmp_path).trials) == comparable(tuple(trials[:5]))
    study = Study.open_for_appending(tmp_path)
    study.append(trials[5])
    assert comparable(Study.open(tmp_path).trials) == comparable(tuple(trials))


def test_the_lock_file_of_a_dead_writer_is_removed(tmp_path: Path) -> None:
    trials = write(tmp_path, 2)
    (tmp_path / f"{STUDY_FILE}.lock").symlink_to(tmp_path / STUDY_FILE)
    study = Study.open_for_appending(tmp_path)
    study.append(trials[0])
    assert len(study.trials) == 3


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run"):
        Study.open(tmp_path)
    (tmp_path / STUDY_FILE).write_text("not a journal\n")
    with pytest.raises(InputError, match="not a readable study"):
        Study.open(tmp_path)


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(InputError, match=r"in use by pid \d+ on .+ since 20"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()
