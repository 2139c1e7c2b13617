"""The `[task]` section: tasks by name, parts of them replaced, and what is refused."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from evosearch.data import splits as data
from evosearch.data.labels import read_labels
from evosearch.errors import InputError
from evosearch.study.scores import ACCURACY
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.config import TaskConfig, load_task, task_digest
from evosearch.tasks.detection import MAP, MAP50
from evosearch.tasks.fitting import require_fit
from evosearch.tasks.regression import REGRESSION
from evosearch.tasks.scoring import image_scores
from evosearch.tasks.segmentation import MEAN_IOU, pixel_cross_entropy
from evosearch.training.objective import require_comparable
from tests.data.helpers import images_of

OWN = """
import numpy as np
import torch

def loss(output, target):
    return (output - target["angle"]).abs().sum(1)

def share(output, target):
    return torch.stack([output[:, 0], target["angle"][:, 0]], 1)

def pooled(rows):
    return float(rows[:, 0].sum() / rows[:, 1].sum())

def collate(labels):
    return {"angle": torch.stack([own["angle"] for own in labels])}

def ragged(labels):
    return torch.stack([own["boxes"] for own in labels])

def distil(output, teacher, temperature):
    return (output - teacher).square().mean() * temperature

def many(output, teacher, temperature):
    return (output - teacher).square()

def predictions(output):
    return [{}] * len(output)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def own(*names, **others):
    return {name: f"own.py:{name}" for name in names} | others


def angles(kind, count=4):
    labels = [
        {"angle": np.array([i + 1.0], np.float32), "boxes": np.zeros((i, 4))} for i in range(count)
    ]
    return kind(
        images=images_of(torch.ones(count, 1, 1, 1)),
        labels=read_labels(labels),
        indices=torch.arange(count),
    )


def test_tasks_by_name(folder):
    assert load_task(TaskConfig(), folder) == CLASSIFICATION
    assert load_task(TaskConfig(name="regression"), folder) == REGRESSION
    task = load_task(TaskConfig(name="segmentation", ignore=0), folder)
    assert task.measure is MEAN_IOU
    assert task.loss.func is pixel_cross_entropy
    assert task.loss.keywords == task.metric.keywords == {"ignore": 0}
    named = own("loss", "predictions", name="detection")
    assert load_task(TaskConfig(**named), folder).measure is MAP
    assert load_task(TaskConfig(**named, metric="mAP50"), folder).measure is MAP50
    assert load_task(TaskConfig(**named), folder).distil is None


def test_a_pooled_metric_of_your_own_on_labels_by_name(folder):
    section = own("loss", "pooled", "collate", metric="own.py:share")
    task = load_task(TaskConfig(**section), folder)
    scores = image_scores(nn.Flatten(), angles(data.SearchSplit), task=task, batch_size=3)
    assert scores.losses.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert scores.score.accuracy == pytest.approx(4 / 10)
    assert scores.score.metric == "share"
    plain = load_task(TaskConfig(loss="own.py:loss", metric="own.py:share"), folder)
    assert (plain.measure.name, plain.measure.pooled) == ("share", None)
    assert load_task(TaskConfig(loss="own.py:loss"), folder).measure is ACCURACY


def test_labels_that_do_not_collate_are_refused_before_training(folder):
    parts = {
        "train": angles(data.TrainSplit),
        "calibration": angles(data.CalibrationSplit).take(slice(0, 0)),
        "search": angles(data.SearchSplit).take(slice(0, 0)),
        "confirmation": angles(data.ConfirmationSplit).take(slice(0, 0)),
    }
    found = data.SearchData(**parts)
    task = load_task(TaskConfig(**own("loss", "pooled", metric="own.py:share")), folder)
    # Boxes of several numbers of rows, which are stacked where nothing else is said.
    with pytest.raises(InputError, match=r"\[data\] train: \[task\] collate: RuntimeError") as e:
        require_fit(nn.Flatten(), found, task)
    assert "\n" not in str(e.value)
    section = own("loss", "pooled", metric="own.py:share", collate="own.py:ragged")
    with pytest.raises(InputError, match=r"\[data\] train: \[task\] collate"):
        require_fit(nn.Flatten(), found, load_task(TaskConfig(**section), folder))
    section["collate"] = "own.py:collate"
    require_fit(nn.Flatten(), found, load_task(TaskConfig(**section), folder))


def test_a_pooled_metric_outside_its_range_is_refused_before_training(folder):
    (folder / "far.py").write_text("def pooled(rows):\n    return 1.5\n")
    section = own("loss", "collate", metric="own.py:share", pooled="far.py:pooled")
    empty = [
        angles(kind).take(slice(0, 0))
        for kind in (data.CalibrationSplit, data.SearchSplit, data.ConfirmationSplit)
    ]
    found = data.SearchData(
        train=angles(data.TrainSplit), calibration=empty[0], search=empty[1], confirmation=empty[2]
    )
    message = r"\[data\] train: \[task\] pooled: expected a value in \[0, 1\], got 1.5"
    with pytest.raises(InputError, match=message):
        require_fit(nn.Flatten(), found, load_task(TaskConfig(**section), folder))


def test_what_distillation_compares(folder):
    section = own("loss", "pooled", "collate", metric="own.py:share")
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]])
    task = load_task(TaskConfig(**section, distil="own.py:distil"), folder)
    assert task.divergence(student, teacher, 4.0).item() == pytest.approx(2.5 * 4)
    odd = load_task(TaskConfig(**section, distil="own.py:many"), folder)
    with pytest.raises(InputError, match=r"distil: expected one number of a batch, got \(2, 1\)"):
        odd.divergence(student, teacher, 4.0)


def test_outputs_that_cannot_be_compared_are_refused_before_training(folder):
    section = own("loss", "predictions", "collate", name="detection")
    task = load_task(TaskConfig(**section), folder)
    train, options = angles(data.TrainSplit), {"temperature": 4.0, "task": task}
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    message = r"^\[finetune\] alpha = 0.9: this task has nothing that compares .*; set it to 0, or"
    with pytest.raises(InputError, match=message):
        require_comparable(model, train, alpha=0.9, **options)
    require_comparable(model, train, alpha=0.0, **options)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (own("loss", name="detection"), "a loss of outputs needs predictions"),
        (own("distil", name="detection"), "distil compares outputs, which a network with its"),
        (own("loss") | {"training_loss": "own.py:loss"}, "training_loss calls the network: give"),
        ({"name": "pose"}, "'classification', 'segmentation', 'regression' or 'detection'"),
        ({"predictions": "own.py:predictions"}, "predictions is for name = 'detection'"),
        ({"ignore": 3}, "ignore is for name = 'segmentation'"),
        ({"pooled": "own.py:pooled"}, "pooled needs a metric of your own"),
        ({"metric": "mAP"}, "metric = 'mAP' is for name = 'detection'"),
        ({"metric": "map"}, "unknown metric 'map': expected one of file.py:name, mAP, mAP50"),
    ],
)
def test_sections_that_are_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        TaskConfig(**section)


def test_the_digest_sees_names_and_what_they_were_given(folder):
    def digest(**section):
        return task_digest(TaskConfig(**section), folder)

    detector = own("loss", "predictions", name="detection")
    sections = [
        {},
        {"name": "regression"},
        {"name": "segmentation"},
        {"name": "segmentation", "ignore": 0},
        detector,
        {**detector, "metric": "mAP50"},
        {**detector, "collate": "own.py:collate"},
        {**detector, "distil": "own.py:distil"},
    ]
    assert len({digest(**section) for section in sections}) == len(sections)
    assert digest(name="classification") == digest()
