"""The look at the base network: what it computes in, what it is worth, and when a run stops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from pydantic import ValidationError

import evosearch
from evosearch.data.config import DataConfig
from evosearch.errors import InputError
from evosearch.models.build import ModelConfig
from evosearch.run import preparation, session
from evosearch.run.baselook import BaseLook
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import read_run_config
from evosearch.run.folder import RunFolder
from evosearch.run.spacefile import SpaceFile
from evosearch.study.scores import Score
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.task import Task
from tests.test_cli import (
    InProcess,
    assert_refused,
    is_stage,
    run,  # noqa: F401  (a fixture)
)

NETWORK = """
import torch
from torch import nn

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(128, 10)

    def forward(self, images):
        maps = self.pool(self.second(self.first(images).relu()).relu())
        return self.head(maps.view(images.size(0), -1))

def flipped(output):
    return -output

def nearness(output, target):
    return output.softmax(1).gather(1, target[:, None])[:, 0]
"""
DIGITS: dict[str, Any] = {
    "name": "digits",
    "mean": [0.305],
    "std": [0.376],
    "calibration": 64,
    "search": 200,
}
MODEL: dict[str, Any] = {"build": "net.py:Fixed", "input": [1, 8, 8], "weights": "w.safetensors"}
WRONG = {"output": "net.py:flipped"}
"""A task for whose output the network is always wrong."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained network that flattens its feature maps by `view`."""
    folder = tmp_path_factory.mktemp("look")
    (folder / "net.py").write_text(NETWORK)
    model = {key: value for key, value in MODEL.items() if key != "weights"}
    space = {"model": model, "data": DIGITS, "train": {"epochs": 3, "lr": 0.05}}
    (folder / "train.toml").write_text(tomli_w.dumps(space))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOSEARCH_CACHE", str(folder / "cache"))
        done = evosearch.train(folder / "train.toml")
    assert done.score.accuracy > 0.85
    done.weights.rename(folder / "w.safetensors")
    return folder


def space(place: Path, name: str, **sections: Any) -> Path:
    """Writes a space file of the trained network, searched at random in float32."""
    content = {
        "model": MODEL | sections.pop("model", {}),
        "data": sections.pop("data", DIGITS),
        "search": {
            "strategy": "random",
            "trials": 2,
            "criterion": "l1",
            "evaluator": {"precision": "float32"},
        },
        **sections,
    }
    path = place / f"{name}.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def searched(path: Path, **given: Any) -> tuple[Path, list[str]]:
    """Searches a space, and returns the run's folder and what was noted."""
    notes: list[str] = []
    out = path.with_suffix("")
    evosearch.search(
        path, flops="50%", out=out, callbacks=Callbacks(on_note=notes.append), **given
    )
    return out, notes


def test_a_network_of_view_is_searched_and_the_fallback_is_said_once(
    place: Path,
    run: InProcess,  # noqa: F811
) -> None:
    space(place, "view")
    done = run("search", "view.toml", "--flops", "50%", "--out", "view", cwd=place)
    assert done.returncode == 0, done.stderr
    base, fallback = [x for x in done.stderr.strip().splitlines() if not is_stage(x)]
    assert fallback.startswith(
        "the base network fails in float32, channels last (RuntimeError: view size is not"
    )
    assert fallback.endswith("): candidates compute in float32, contiguous")
    header = evosearch.load_run(place / "view").study.header
    text = header.base.search.accuracy_text
    assert base == (
        f"base network: loss {header.base.search.loss:.4g}, accuracy {text} % on 200 search images"
    )
    log = RunFolder(place / "view").log.read_text()
    assert [line.split(" ", 2)[2] for line in log.splitlines() if " note " in line] == [
        f'note text="{base}"',
        f'note text="{fallback}"',
    ]
    evaluator = read_run_config(place / "view").search.evaluator
    assert (evaluator.precision, evaluator.layout) == ("float32", "contiguous")
    resumed = run("resume", "view", "--trials", "3", cwd=place)
    assert resumed.returncode == 0, resumed.stderr
    assert "view size" not in resumed.stderr
    assert RunFolder(place / "view").log.read_text().count("view size") == 1


def test_files_of_a_run_may_be_read_by_whoever_may_read_their_neighbours(place: Path) -> None:
    out, _ = searched(space(place, "modes"))
    files = [path for path in out.rglob("*") if path.is_file()]
    assert RunFolder(out).base in files
    assert {path.stat().st_mode for path in files} == {RunFolder(out).config.stat().st_mode}


def test_a_base_network_that_guesses_stops_the_search(
    place: Path,
    run: InProcess,  # noqa: F811
) -> None:
    space(place, "wrong", task=WRONG)
    command = ("search", "wrong.toml", "--flops", "50%", "--out", "wrong")
    done = run(*command, cwd=place)
    assert_refused(done, "the base network has an accuracy of 0.")
    for text in ("% on 200 search images", "class 1", "labels", "mean and std", "weights"):
        assert text in done.stderr
    assert done.stderr.endswith("; --anyway goes on all the same\n")
    assert not (place / "wrong").exists()
    anyway = run(*command, "--anyway", cwd=place)
    assert anyway.returncode == 0, anyway.stderr
    assert "guessing their commonest class 1" in anyway.stderr
    assert "guessing their commonest class 1" in RunFolder(place / "wrong").log.read_text()


def test_a_base_network_far_under_its_stated_accuracy_stops_the_search(place: Path) -> None:
    """Images that are normalised otherwise than in training are told from those that are."""
    stated = {"accuracy": 97.0}
    raw = DIGITS | {"mean": [0.5], "std": [3.0]}
    path = space(place, "stated", data=raw, model=stated)
    with pytest.raises(InputError, match=r"far under the 97 % of \[model\] accuracy: check the"):
        searched(path)
    _, notes = searched(path, anyway=True)
    assert ["far under" in note for note in notes] == [False, True, False]
    searched(space(place, "right", model={"accuracy": 90.0}))


def test_own_metrics_and_noise_are_shown_and_never_refused(place: Path) -> None:
    own = WRONG | {"metric": "net.py:nearness"}
    _, notes = searched(space(place, "own", task=own))
    assert notes[0].startswith("base network: loss ")
    images = {"size": 140, "image_size": [1, 8, 8], "num_classes": 10}
    noise = {"name": "fake", "calibration": 64, "search": 64, "kwargs": images}
    _, notes = searched(space(place, "noise", data=noise, model={"accuracy": 97.0}))
    assert notes[0].startswith("base network: loss ")


def test_training_that_ends_at_chance_is_said(place: Path) -> None:
    model = {key: value for key, value in MODEL.items() if key != "weights"}
    content = {"model": model, "data": DIGITS, "task": WRONG, "train": {"epochs": 1, "lr": 1e-9}}
    (place / "idle.toml").write_text(tomli_w.dumps(content))
    notes: list[str] = []
    evosearch.train(place / "idle.toml", callbacks=Callbacks(on_note=notes.append))
    (note,) = notes
    assert "guessing their commonest class" in note


def look(right: int, images: int, *, labels: list[int], **given: Any) -> BaseLook:
    """Returns the look at a score of so many images right, by the look's own rules."""
    share = right / images
    score = Score(loss=1.0, loss_se=0.1, accuracy=share, accuracy_se=0.0, images=images)
    task = given.pop("task", CLASSIFICATION)
    stated = given.pop("stated", None)
    file = SpaceFile(
        model=ModelConfig(build="net.py:Fixed", input=(1, 8, 8), accuracy=stated),
        data=DataConfig(name=given.pop("data", "digits"), calibration=2, search=2),
    )
    return BaseLook.of(score, file, task, torch.tensor(labels))


def test_chance_is_the_commonest_class_and_counts_with_the_interval() -> None:
    """Wilson's interval of 3 of 10 right is 10.8 to 60.3 %, of 19 of 20 76.4 to 99.1 %."""
    assert look(3, 10, labels=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).chance == 0.1
    assert look(3, 10, labels=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).complaint is None
    assert look(3, 10, labels=[0, 0, 2, 3, 4, 5, 6, 7, 8, 9]).complaint is not None
    assert look(19, 20, labels=[0] * 15 + [1] * 5).complaint is None  # 75 %
    assert look(19, 20, labels=[0] * 16 + [1] * 4).complaint is not None  # 80 %
    assert look(0, 10, labels=[0, 1] * 5).complaint is not None


def test_stated_accuracy_is_missed_by_more_than_error_and_five_points() -> None:
    """The upper end of Wilson's interval of 80 of 100 right is 86.7 %."""
    labels = list(range(100))
    assert look(80, 100, labels=labels, stated=91.6).complaint is None
    assert "far under the 91.8 %" in str(look(80, 100, labels=labels, stated=91.8).complaint)
    assert look(80, 100, labels=labels).complaint is None


def test_a_share_is_no_percentage() -> None:
    with pytest.raises(ValidationError, match="greater than 1"):
        look(80, 100, labels=[0, 1] * 50, stated=0.918)


def test_nothing_is_known_of_a_metric_of_ones_own_or_of_noise() -> None:
    own = Task(loss=CLASSIFICATION.loss, metric=lambda output, target: output[:, 0] * 0)
    assert look(0, 10, labels=[0, 1] * 5, task=own).complaint is None
    assert look(0, 10, labels=[0, 1] * 5, data="fake", stated=90.0).complaint is None
    assert look(0, 10, labels=[0, 1] * 5, task=own, stated=90.0).complaint is not None


def fail(*_: object, **__: object) -> Any:
    raise KeyError("out of the blue")


def log_lines(out: Path) -> list[str]:
    return RunFolder(out).log.read_text().splitlines()


@pytest.mark.parametrize(
    ("owner", "name"), [(preparation, "measure_references"), (preparation, "load_subject")]
)
def test_what_fails_unexpectedly_in_a_preparation_is_logged(
    owner: Any, name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = space(place, f"blue-{name}")
    out = path.with_suffix("")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(KeyError, match="out of the blue"):
            searched(path)
    (line,) = log_lines(out)
    assert " ERROR error error=\"KeyError: 'out of the blue'\" traceback=" in line
    assert "in prepare" in line
    assert [entry.name for entry in out.iterdir()] == ["run.log"]
    searched(path)  # goes where it was to go, and keeps the log
    assert log_lines(out)[0] == line
    assert " INFO start " in log_lines(out)[1]


def test_what_fails_unexpectedly_in_a_search_or_a_resumed_one_is_logged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = space(place, "sky")
    out = path.with_suffix("")
    calls: dict[str, Callable[[], Any]] = {
        "search": lambda: searched(path),
        "reopen": lambda: evosearch.resume(out, trials=3),
    }
    for name, call in calls.items():
        with monkeypatch.context() as patch:
            patch.setattr(session, name, fail)
            with pytest.raises(KeyError, match="out of the blue"):
                call()
        assert " ERROR error error=\"KeyError: 'out of the blue'\"" in log_lines(out)[-1]
    assert len(calls["reopen"]().study.trials) == 3
