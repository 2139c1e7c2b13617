"""The steps of `evosearch/tasks/README.md`, followed as they are written."""

import math
import tomllib

import pytest
import torch
from torch import nn

from evosearch.data import splits as data
from evosearch.tasks.config import TaskConfig, load_task
from evosearch.tasks.ownlosses import summed_losses
from evosearch.tasks.scoring import image_scores, score
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from tests.data.helpers import split_of
from tests.readmes import code_blocks


class Tagger(nn.Module):
    """A linear layer on pixels that gives its outputs by name."""

    def __init__(self, weight):
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images):
        return {"size": images.shape, "tags": self.linear(images.flatten(1))}


SECTIONS = tomllib.loads(code_blocks("tasks", "toml")[0])
IMAGES = torch.tensor([[0.0, 2.0], [-1.0, 0.5], [3.0, -1.0]])[:, None, None, :]
TAGS = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])


@pytest.fixture
def task(tmp_path):
    (tmp_path / "my_task.py").write_text(code_blocks("tasks", "python")[0])
    return load_task(TaskConfig(**SECTIONS["task"]), tmp_path)


def test_a_task_of_your_own_by_hand(task):
    scores = image_scores(
        Tagger([[1.0, 0.0], [0.0, 1.0]]), split_of(data.SearchSplit, IMAGES, TAGS), task=task
    )
    # The logits are the pixels: log(1 + e^-z) where the tag is there, log(1 + e^z) where not.
    by_hand = [(0, -2), (-1, 0.5), (-3, -1)]
    expected = [sum(math.log1p(math.exp(z)) for z in pair) / 2 for pair in by_hand]
    assert scores.losses.tolist() == pytest.approx(expected, rel=1e-6)
    assert scores.metrics.tolist() == [0.5, 0.5, 1.0]


def test_it_is_trained_and_distilled_on(task):
    pixels = torch.randn(64, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    tags = (pixels.flatten(1) > 0).float()
    train, search = (
        split_of(data.TrainSplit, pixels, tags),
        split_of(data.SearchSplit, IMAGES, TAGS),
    )
    teacher, student = (Tagger([[0.0, 0.1], [0.1, 0.0]]) for _ in range(2))
    before = score(teacher, train, task=task)
    assert before.loss > 0.65
    train_base(teacher, train, search, TrainConfig(epochs=5, batch_size=16), 0, task=task)
    config = FinetuneConfig(epochs=5, batch_size=16, **SECTIONS["finetune"])
    distil(teacher, student, train, search, config, 0, task=task)
    for network in (teacher, student):
        assert score(network, train, task=task).loss < 0.8 * before.loss
        assert score(network, train, task=task).accuracy > 0.9


def test_a_metric_of_all_images_together(tmp_path):
    (tmp_path / "my_task.py").write_text(code_blocks("tasks", "python")[0])
    (tmp_path / "my_f1.py").write_text(code_blocks("tasks", "python")[1])
    section = {**SECTIONS["task"], "metric": "my_f1.py:metric", "pooled": "my_f1.py:pooled"}
    own = load_task(TaskConfig(**section), tmp_path)
    model = Tagger([[1.0, 0.0], [0.0, 1.0]])
    found = score(model, split_of(data.SearchSplit, IMAGES, TAGS), task=own)
    # Of three tags that are there two are found, and one is found that is not.
    assert found.accuracy == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_the_sections_of_detectors(tmp_path):
    raw, own = (tomllib.loads(block) for block in code_blocks("tasks", "toml")[1:3])
    section = TaskConfig(**raw["task"])
    assert (section.name, section.metric) == ("detection", None)
    assert FinetuneConfig(**raw["finetune"]).alpha == 0
    task = load_task(TaskConfig(**own["task"]), tmp_path)
    assert task.training_loss is summed_losses
    assert FinetuneConfig(**own["finetune"]).alpha == 0
