"""Runs whose metric is pooled, and whose labels are nests: searched, resumed, finished, shown."""

import shutil
from pathlib import Path

import pytest
import torch

import evosearch
from evosearch.cli import main
from evosearch.errors import InputError
from evosearch.models.build import build_model
from evosearch.report.networks import networks_table
from evosearch.run.measurer import RunMeasurer
from evosearch.run.reopening import reopen
from evosearch.run.spacefile import load_space_file
from evosearch.study.scorestore import ScoreStore
from evosearch.tasks.detection import MAP, MAP50
from tests.report.test_columns import shown

CODE = '''
import numpy as np
import torch
from torch import nn
from torch.nn import functional

def data():
    """Squares of one of two brightnesses on a dark ground."""
    rng = np.random.default_rng(0)
    def part(count):
        images, maps, boxes = np.zeros((count, 1, 12, 12), np.float32), [], []
        for image in images:
            label, (top, left) = rng.integers(1, 3), rng.integers(0, 8, 2)
            image += rng.normal(0, 0.4, image.shape)
            image[0, top : top + 4, left : left + 4] += label
            pixels = np.zeros((12, 12), np.uint8)
            pixels[top : top + 4, left : left + 4] = label
            maps.append(pixels)
            boxes.append({"boxes": np.array([[left, top, left + 4, top + 4]], np.float32),
                          "labels": np.array([label - 1])})
        return images, maps, boxes
    return {"train": part(90), "test": part(30)}

def maps():
    return {name: (images, np.stack(pixels)) for name, (images, pixels, _) in data().items()}

def boxes():
    return {name: (images, found) for name, (images, _, found) in data().items()}

class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        )
        self.head = nn.Conv2d(8, outputs, 1)

    def forward(self, images):
        return {"raw": [self.head(self.body(images))]}

class Maps(Net):
    def __init__(self):
        super().__init__(3)

    def forward(self, images):
        return {"out": super().forward(images)["raw"][0], "size": images.shape[2]}

class Boxes(Net):
    def __init__(self):
        super().__init__(2)

def loss(output, target):
    """Each pixel of a square answers for its class."""
    wanted = torch.zeros_like(output["raw"][0])
    for own, true in zip(wanted, target, strict=True):
        for (left, top, right, bottom), label in zip(true["boxes"].long(), true["labels"]):
            own[label, top:bottom, left:right] = 1
    logits = output["raw"][0]
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return each.flatten(1).mean(1)

def predictions(output):
    """The square under the pixels of each class that are above a half, if there are any."""
    found = []
    for own in output["raw"][0].sigmoid():
        boxes, scores, labels = [], [], []
        for label, heat in enumerate(own):
            rows, columns = (heat > 0.5).nonzero(as_tuple=True)
            if len(rows):
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                scores.append(heat.max())
                labels.append(label)
        found.append({"boxes": torch.tensor(boxes).reshape(-1, 4).float(),
                      "scores": torch.tensor(scores), "labels": torch.tensor(labels)})
    return found
'''
SPACE = """
[model]
build = "own.py:{model}"
input = [1, 12, 12]

[data]
name = "own.py:{data}"
calibration = 16
search = 24
confirmation = 12

[task]
{task}

[train]
epochs = 40
batch_size = 16
lr = 0.3

[search]
device = "cpu"
strategy = "random"

[finetune]
epochs = 1
lr = 0.01
"""
SECTIONS = {
    "maps": 'name = "segmentation"',
    "boxes": 'name = "detection"\nloss = "own.py:loss"\npredictions = "own.py:predictions"',
}


def write_space(folder: Path, name: str, extra: str = "") -> Path:
    (folder / "own.py").write_text(CODE)
    text = SPACE.format(model=name.capitalize(), data=name, task=SECTIONS[name]) + extra
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module", params=["maps", "boxes"])
def searched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, evosearch.Run]:
    folder = tmp_path_factory.mktemp(request.param)
    extra = "alpha = 0.0\n" if request.param == "boxes" else ""
    space = write_space(folder, request.param, extra)
    return (
        request.param,
        space,
        evosearch.search(space, flops="50%", trials=5, seed=0, out=folder / "run", anyway=True),
    )


@pytest.mark.slow
def test_a_run_is_scored_and_resumed_by_a_pooled_metric(
    searched: tuple[str, Path, evosearch.Run], tmp_path: Path
) -> None:
    name, space, run = searched
    metric = {"maps": "mIoU", "boxes": "mAP"}[name]
    base = run.study.header.base.search
    assert (base.metric, base.pooled, base.images) == (metric, True, 24)
    assert base.accuracy > 0.3
    assert 0 <= base.accuracy_se < 0.2
    shutil.copytree(run.folder, tmp_path / "run")
    found = reopen(run.folder, run.study.header, lambda _: None)
    measure = found.subject.task.measure
    store = ScoreStore(run.folder / "scores", measure)
    for trial in run.study.trials:
        scores = store.get(trial.mask)
        assert scores is not None
        assert trial.evaluation is not None
        assert scores.score == trial.evaluation.score
    if name == "boxes":
        kept = store.get(run.study.header.base.mask)
        assert kept is not None
        assert MAP50.value(kept.metrics) >= MAP.value(kept.metrics) == base.accuracy
    whole = evosearch.search(space, flops="50%", trials=7, seed=0, out=tmp_path / "whole")
    more = evosearch.resume(tmp_path / "run", trials=7)
    assert [t.evaluation.score for t in more.study.trials if t.evaluation] == [
        t.evaluation.score for t in whole.study.trials if t.evaluation
    ]


@pytest.mark.slow
def test_a_network_is_finished_and_shown_by_its_metric(
    searched: tuple[str, Path, evosearch.Run],
) -> None:
    name, space, run = searched
    done = evosearch.finetune(run.folder, epochs=1)
    metric = {"maps": "mIoU", "boxes": "mAP"}[name]
    assert {network.test.metric for network in done.networks if network.test} == {metric}
    # There are confirmation images, but exact bounds are of metrics that are means.
    assert done.confirmed is None
    prepared = reopen(run.folder, run.study.header, lambda _: None)
    model = prepared.subject.model
    assert RunMeasurer(run.folder, prepared).gain(model, model) is None
    text = shown(networks_table(run.study, done.networks))
    assert f"test {metric}, %" in text
    assert "accuracy" not in text
    assert f"test {metric} |" in (done.artifact.folder / "README.md").read_text()
    section = load_space_file(space).model
    own = done.artifact.load(lambda: build_model(section, space.parent))
    with torch.no_grad():
        returned = own(torch.zeros(1, 1, 12, 12))
    assert set(returned) == ({"out", "size"} if name == "maps" else {"raw"})
    view = shown(evosearch.pareto(run.folder).render())
    assert metric in view


def test_a_drop_of_a_pooled_metric_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    space = write_space(tmp_path, "maps")
    message = r"--accuracy-drop is certified for .* and mIoU is pooled over images; limit"
    with pytest.raises(InputError, match=message) as error:
        evosearch.search(space, accuracy_drop=1.0, out=tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "section"),
    [
        ("", "finetune"),
        ("alpha = 0.0\n\n[search.evaluator]\nbuild = 'elastic'\n", "elastic"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused_before_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: str,
    section: str,
) -> None:
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    space = write_space(tmp_path, "boxes", extra)
    message = rf"\[{section}\] alpha = 0.9: this task has nothing that compares the outputs"
    with pytest.raises(InputError, match=message) as error:
        evosearch.search(space, flops="50%", out=tmp_path / "run")
    assert "\n" not in str(error.value)


FAR = """
def metric(output, target):
    return target[:, 0, 0] + 2.0
"""
RAGGED = """
import numpy as np
from own import boxes

def ragged():
    found = boxes()
    for _, labels in found.values():
        labels[1] = {name: np.concatenate([own, own]) for name, own in labels[1].items()}
    return found
"""
STACKED = """
import torch

def collate(labels):
    return {name: torch.stack([own[name] for own in labels]) for name in labels[0]}
"""


@pytest.mark.parametrize(
    ("name", "code", "task", "extra", "message"),
    [
        (
            "maps", FAR, 'metric = "odd.py:metric"', "",
            "[data] train: [task] metric: expected values in [0, 1], got 2 to ",
        ),
        (
            "boxes", STACKED, 'collate = "odd.py:collate"', "alpha = 0.0",
            "[data] train: [task] collate: RuntimeError: ",
        ),
        (
            "boxes", "", "", "",
            "[finetune] alpha = 0.9: this task has nothing that compares the outputs",
        ),
    ],
)  # fmt: skip
def test_the_command_line_says_in_a_line_what_is_wrong_before_any_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: str,
    task: str,
    extra: str,
    message: str,
) -> None:
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    space = write_space(tmp_path, name, extra)
    text = space.read_text().replace(SECTIONS[name], f"{SECTIONS[name]}\n{task}")
    ragged = text.replace("own.py:boxes", "odd.py:ragged") if "collate" in task else text
    (tmp_path / "odd.py").write_text(code + RAGGED)
    space.write_text(ragged)
    arguments = ["search", str(space), "--flops", "50%", "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["evosearch", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"evosearch: {message}")


def test_labels_that_a_task_cannot_judge_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.run.subject.train_base", None)
    space = write_space(tmp_path, "boxes")
    space.write_text(space.read_text().replace(SECTIONS["boxes"], 'name = "segmentation"'))
    with pytest.raises(InputError, match=r"\[data\] train: \[task\] ") as error:
        evosearch.search(space, flops="50%", out=tmp_path / "run")
    assert "\n" not in str(error.value)
