"""Commands that torchrun starts several times: one writer, and what one process comes to."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import evosearch
from evosearch.run.callbacks import Callbacks
from evosearch.run.replicas import replica
from evosearch.training.epochs import EpochRecord
from tests.training.twoprocesses import IN_TWO

ROOT = Path(__file__).parents[2]
SPACE = """
[model]
build = "evosearch.models.zoo:digits_resnet"
input = [1, 8, 8]
[model.kwargs]
width = 4
[data]
name = "digits"
calibration = 150
search = 350
augment = ["crop"]
[train]
epochs = 2
[search]
threads = 1
device = "cpu"
[finetune]
epochs = 3
precision = "float32"
"""


class Stopped(Exception):
    pass


def stop_in_second(record: EpochRecord) -> None:
    if record.epoch == 2:
        raise Stopped


def in_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a command in two processes."""
    return subprocess.run(
        [*IN_TWO, "evosearch", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def finished(run: Path) -> dict[str, float]:
    """Returns the loss on the search split and the size of the network that a run shipped."""
    (card,) = run.glob("artifacts/*/card.json")
    network = json.loads(card.read_text())["networks"][-1]
    return {"loss": network["search"]["loss"], "params": network["params"]}


def files(run: Path) -> set[Path]:
    return {path.relative_to(run) for path in run.rglob("*") if path.name != ".lock"}


def test_alone_the_folder_is_the_runs_own(tmp_path: Path) -> None:
    with replica(tmp_path) as own:
        assert own == tmp_path


@pytest.mark.slow
def test_finetuning_goes_on_in_two_processes_with_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch alone, the others in shares: the run is as one that was never stopped."""
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "space.toml").write_text(SPACE)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    evosearch.search(
        tmp_path / "space.toml", flops="50%", strategy="random", trials=2, out=alone, anyway=True
    )
    shutil.copytree(alone, shared)
    evosearch.finetune(alone)
    with pytest.raises(Stopped):
        evosearch.finetune(shared, callbacks=Callbacks(on_epoch=stop_in_second))
    done = in_two("finetune", shared)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("artifact:") == 1
    assert files(shared) == files(alone)
    assert finished(shared) == pytest.approx(finished(alone), rel=1e-3)


@pytest.mark.slow
def test_a_training_under_a_budget_in_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "space.toml").write_text(SPACE)
    made = [tmp_path / "alone", tmp_path / "shared"]
    alone = evosearch.train(tmp_path / "space.toml", flops="50%", out=made[0])
    done = in_two("train", tmp_path / "space.toml", "--flops", "50%", "--out", made[1])
    assert done.returncode == 0, done.stderr
    shared = evosearch.load_run(made[1])
    assert isinstance(alone, evosearch.Run)
    assert [t.mask.widths for t in shared.study.trials] == [
        t.mask.widths for t in alone.study.trials
    ]
    assert files(made[1]) == files(made[0])


@pytest.mark.slow
def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    done = in_two("finetune", tmp_path / "nothing")
    assert done.returncode != 0
    assert done.stderr.count("evosearch:") == 1
