"""Finals from the command to the artifact: what is shipped, confirmed, tested and shown."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import evosearch
from evosearch.errors import InputError
from evosearch.models.build import build_model
from evosearch.models.weights import weights_digest
from evosearch.report.finals import finals_lines
from evosearch.report.pareto import ParetoView
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import read_run_config
from evosearch.run.finals import Decided
from evosearch.run.folder import RunFolder
from evosearch.run.preparation import Prepared
from evosearch.run.reopening import reopen
from evosearch.tasks.scoring import image_scores, score
from evosearch.training.distillation import distil
from tests.test_cli import QUICK, InProcess, run  # noqa: F401  (a fixture)
from tests.test_cli import evosearch as command

SPACE = QUICK.replace("width = 8", "width = 4").replace(
    "search = 300", "search = 200\nconfirmation = 150"
)
EPOCHS = 3


@pytest.fixture(scope="module")
def notes() -> list[str]:
    return []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, notes: list[str]) -> Decided:
    folder = tmp_path_factory.mktemp("finals")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOSEARCH_CACHE", str(folder / "cache"))
        torch.set_num_threads(1)
        (folder / "quick.toml").write_text(SPACE)
        search = {"strategy": "random", "trials": 5, "out": folder / "run"}
        searched = evosearch.search(folder / "quick.toml", flops="50%", **search)
        callbacks = Callbacks(on_note=notes.append)
        found = evosearch.finetune(searched.folder, finals=4, epochs=EPOCHS, callbacks=callbacks)
    assert isinstance(found, Decided)
    return found


@pytest.fixture(scope="module")
def folder(done: Decided) -> Path:
    return done.artifact.folder.parent.parent


@pytest.fixture(scope="module")
def prepared(done: Decided, folder: Path) -> Prepared:
    return reopen(folder, done.study.header, lambda _: None)


def test_the_plans_are_the_best_near_the_budget_and_one_without_a_search(done: Decided) -> None:
    finals = done.finals
    assert finals.at.startswith("flops=")
    names = [own.plan.name for own in finals.finalists]
    assert names[0] == f"global, no search, {finals.at}"
    best = sorted(done.study.trials, key=lambda trial: trial.loss)
    masks = [trial.mask for trial in best if trial.mask != finals.finalists[0].plan.mask]
    assert [own.plan.mask for own in finals.finalists[1:]] == masks[:3]
    assert [own.epochs for own in finals.finalists if own.epochs == EPOCHS] == [EPOCHS] * 2
    assert finals.finalists[0].epochs == EPOCHS
    assert finals.winner in (0, finals.rival)


def test_the_cost_is_printed_before_and_counted_after(
    done: Decided, notes: list[str], prepared: Prepared
) -> None:
    finals, images = done.finals, len(prepared.subject.data.train)
    base = prepared.subject.discovery.space.base_cost.macs
    costs = [own.epochs * images * (3 * own.plan.cost.macs + base) for own in finals.finalists]
    assert finals.image_macs == sum(costs)
    (line,) = [note for note in notes if note.startswith("finals: ")]
    assert line.startswith(f"finals: 4 networks to epoch 1, 2 to {EPOCHS} of {EPOCHS}: ")
    assert finals.image_macs <= float(line.split(": ")[2].split()[0]) * 1.005


def test_both_that_were_trained_to_the_end_are_what_finetune_makes_of_their_plans(
    done: Decided, prepared: Prepared, folder: Path
) -> None:
    finals, subject = done.finals, prepared.subject
    config = prepared.config.space.finetune.model_copy(update={"epochs": EPOCHS})
    networks = {}
    for index in (0, finals.rival):
        own = finals.finalists[index]
        networks[index] = prepared.evaluator.builder.final(own.plan.mask)
        data = subject.data
        distil(subject.model, networks[index], data.train, data.search, config, 0)
        assert score(networks[index], data.search) == own.network.search
    shipped = done.artifact.load(lambda: build_model(prepared.config.space.model))
    assert weights_digest(shipped) == weights_digest(networks[finals.winner])
    right = {
        index: image_scores(network, subject.data.confirmation).metrics
        for index, network in networks.items()
    }
    assert finals.gain is not None
    assert finals.gain.images == 150
    assert finals.gain.gained == ((right[finals.rival] == 1) & (right[0] == 0)).sum()
    assert finals.gain.lost == ((right[finals.rival] == 0) & (right[0] == 1)).sum()
    ledger = json.loads(RunFolder(folder).test.read_text())
    assert ledger["opened"] == 1
    assert list(ledger["results"]) == [finals.network.name]


def test_they_are_shown_like_every_fine_tuned_network(done: Decided, folder: Path) -> None:
    view = ParetoView.read(folder)
    plan = done.finals.finalists[done.finals.winner].plan.name
    assert view.notes.distilled[plan].test == done.finals.test
    content = view.to_json()
    assert content["distilled"][plan]["name"] == f"{plan}, distilled {EPOCHS} epochs"
    (shown,) = content["finals"]
    assert shown["winner"] == done.finals.network.name
    assert shown["telling"] is None or shown["telling"]["count"] == 4
    assert shown["text"][-1].startswith("rank correlation")
    card = (done.artifact.folder / "README.md").read_text()
    assert f"The winner of finals at {done.finals.at}, of 4 networks" in card


def test_called_again_they_are_over(
    run: InProcess,  # noqa: F811
    done: Decided,
    folder: Path,
) -> None:
    """Nothing is trained; the command prints what came of them."""
    record = next(RunFolder(folder).finals.rglob("*.json")).read_bytes()
    (place,) = RunFolder(folder).finals.iterdir()
    (place / ".0123456789ab.trial-1.progress").touch()  # that a kill amid writing leaves
    again = run("finetune", folder, "--finals", "4", "--epochs", str(EPOCHS), cwd=folder.parent)
    assert again.returncode == 0, again.stderr
    assert "image-MACs at most" not in again.stderr
    assert "epoch" not in again.stderr
    assert all(line in again.stdout for line in finals_lines(done.finals))
    assert f"artifact: {done.artifact.folder}" in again.stdout
    assert next(RunFolder(folder).finals.rglob("*.json")).read_bytes() == record
    assert not list(folder.rglob("*.progress"))


def test_what_cannot_be_is_refused_in_a_line(folder: Path) -> None:
    with pytest.raises(InputError, match=r"takes 29 plans .* the run has \d others within flops"):
        evosearch.finetune(folder, finals=30, epochs=9)
    with pytest.raises(InputError, match="--finals 1: expected 2 or more"):
        evosearch.finetune(folder, finals=1)
    with pytest.raises(InputError, match="--pick is for one plan"):
        evosearch.finetune(folder, finals=2, pick="knee")
    with pytest.raises(InputError, match="--baselines is for one plan"):
        evosearch.finetune(folder, finals=2, baselines=True)
    with pytest.raises(InputError, match="networks take 2 epochs or more"):
        evosearch.finetune(folder, finals=4, epochs=1)
    with pytest.raises(InputError, match="fine-tuned with other settings"):
        evosearch.finetune(folder, finals=4, epochs=EPOCHS + 1)
    with pytest.raises(InputError, match="smallest reachable network"):
        evosearch.finetune(folder, finals=2, at="flops=0.1%")
    assert json.loads(RunFolder(folder).test.read_text())["opened"] == 1


def test_networks_that_begin_with_other_channels_are_not_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_run_config(folder)
    paced = config.space.finetune.model_copy(update={"pace": "cubic"})
    space = config.space.model_copy(update={"finetune": paced})
    other = config.model_copy(update={"space": space})
    monkeypatch.setattr("evosearch.run.finals.read_run_config", lambda _: other)
    with pytest.raises(InputError, match="pace and implants: finals compare"):
        evosearch.finetune(folder, finals=3, epochs=EPOCHS)


@pytest.mark.slow
def test_finals_that_are_killed_end_as_those_that_were_not(tmp_path: Path) -> None:
    """SIGKILL after some more checkpoints each time, and once they are being saved."""
    (tmp_path / "quick.toml").write_text(SPACE)
    search = ("search", "quick.toml", "--flops", "50%", "--strategy", "random", "--trials", "5")
    assert command(*search, "--out", "run", cwd=tmp_path).returncode == 0
    for name in ("whole", "killed"):
        shutil.copytree(tmp_path / "run", tmp_path / name)
    finals = ("--finals", "4", "--epochs", "18")
    assert command("finetune", "whole", *finals, cwd=tmp_path).returncode == 0

    environment = {**os.environ, "EVOSEARCH_CACHE": str(tmp_path / "cache")}
    environment["OMP_NUM_THREADS"] = "1"
    killed = tmp_path / "killed"
    for wanted in (1, 3, 8, 6):
        process = subprocess.Popen(
            [sys.executable, "-m", "evosearch", "finetune", str(killed), *finals],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before, seen = checkpoints(killed), 0
        while process.poll() is None and seen < wanted:
            time.sleep(0.002)
            now = checkpoints(killed)
            seen, before = seen + (now != before), now
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert command("finetune", "killed", *finals, cwd=tmp_path).returncode == 0
    for pattern in ("finals/*/finals.json", "artifacts/*/weights.safetensors", "test.json"):
        (one,), (other,) = (list((tmp_path / n).glob(pattern)) for n in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()
    assert not list(killed.rglob("*.progress"))


def checkpoints(folder: Path) -> list[tuple[str, int]]:
    found = []
    for path in folder.glob("finals/*/*.progress"):
        try:
            found.append((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:  # replaced at this moment
            continue
    return sorted(found)
