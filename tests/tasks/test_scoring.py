import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.errors import EvaluationError, InputError
from evosearch.models.modes import evaluating
from evosearch.models.precision import PLAIN, Numerics
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.scoring import image_scores, score, working_numerics
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from tests.data import helpers

LAST = Numerics(precision="float32", layout="channels_last")


class Logits(nn.Module):
    """Takes the first pixels of an image for its logits."""

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(images.flatten(1)[:, : self.classes])


def split_of(logits, labels):
    images = torch.tensor(logits, dtype=torch.float32)[:, None, None, :]
    return helpers.split_of(SearchSplit, images, labels)


def test_score_by_hand():
    # Losses: log 2, log 4 (right has probability 1/4), log(4/3).
    split = split_of([[0, 0], [math.log(3), 0], [math.log(3), 0]], [0, 1, 0])
    losses = [math.log(2), math.log(4), math.log(4 / 3)]
    result = score(Logits(), split)
    assert result.images == 3
    assert result.loss == pytest.approx(np.mean(losses), abs=1e-6)
    assert result.loss_se == pytest.approx(np.std(losses, ddof=1) / math.sqrt(3), abs=1e-6)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.accuracy_se == pytest.approx(math.sqrt((2 / 3) * (1 / 3) / 2))


def test_image_scores_by_hand():
    split = split_of([[0, 0], [math.log(3), 0]], [0, 1])
    scores = image_scores(Logits(), split)
    assert scores.losses == pytest.approx([math.log(2), math.log(4)], abs=1e-6)
    assert scores.metrics.tolist() == [1, 0]
    assert scores.losses.dtype == np.float64


def test_batches_do_not_change_the_score(digits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole = image_scores(model, digits.search, batch_size=350)
    parts = image_scores(model, digits.search, batch_size=37)
    assert parts.losses == pytest.approx(whole.losses, abs=1e-6)
    assert np.array_equal(parts.metrics, whole.metrics)


def test_modes_come_back_and_dropout_is_off():
    model = nn.Sequential(Logits(), nn.BatchNorm1d(2))
    model.train()
    model[1].eval()
    split = split_of([[0, 0], [1, 0]], [0, 1])
    assert score(model, split) == score(model, split)
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert int(model[1].num_batches_tracked) == 0


def test_modes_come_back_after_an_error():
    model = Logits().train()

    def fail():
        with evaluating(model):
            assert not model.dropout.training
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert model.dropout.training


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails(value):
    split = split_of([[0, 0], [value, 0], [0, 1]], [0, 1, 1])
    with pytest.raises(EvaluationError, match="not finite on 1 of 3 images"):
        score(Logits(), split)


def test_outputs_that_are_no_logits():
    split = split_of([[0, 0], [1, 0]], [0, 1])
    with pytest.raises(InputError, match=r"expected logits \(2, classes\) .* got \(2, 1, 1, 2\)"):
        score(nn.Identity(), split)


def test_labels_beyond_the_classes():
    with pytest.raises(InputError, match="label 2, the model only 2 classes"):
        score(Logits(), split_of([[0, 0], [1, 0]], [0, 2]))


def test_one_image_has_no_standard_error():
    with pytest.raises(InputError, match="at least two images"):
        score(Logits(), split_of([[0, 0]], [0]))


class Fixed(nn.Module):
    """Flattens feature maps by `view`, which takes memory to be contiguous."""

    def __init__(self, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(64, 2)

    def forward(self, images):
        maps = self.second(self.first(images).relu()).relu()
        return self.head(maps.view(images.size(0), -1))


class Exact(nn.Module):
    """Adds up by an operator that takes one type alone."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        maps = self.convolution(images).flatten(2).sum(2)
        return torch.zeros(len(maps), 4).index_add(0, torch.arange(len(maps)), maps)[:, :2]


def rgb_split(kind=SearchSplit, count=12):
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    return helpers.split_of(kind, torch.randn(count, 3, 4, 4, generator=rng), labels)


@pytest.mark.parametrize(
    ("model", "precision", "expected", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "bfloat16", LAST, None),
        (Fixed(), "float32", PLAIN, "RuntimeError: view size is not compatible"),
        (Exact(), "bfloat16", LAST, "RuntimeError: .* same scalar type"),
    ],
)
def test_numerics_are_those_that_the_network_works_in(model, precision, expected, reason):
    wanted = replace(LAST, precision=precision)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found, failed = working_numerics(model, rgb_split(), wanted)
    if reason is None:
        assert (found, failed) == (wanted, None)
    else:
        assert found == expected
        assert re.match(reason, failed)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.is_contiguous()
    assert np.isfinite(image_scores(model, rgb_split(), numerics=found).losses).all()


def test_the_layout_that_is_tried_is_the_outputs_too():
    """A task of one's own may view the maps that a network returns."""

    def loss(output, target):
        return (output.view(len(output), -1)[:, 0] - target).square()

    task = replace(CLASSIFICATION, loss=loss, metric=lambda output, _: output[:, 0, 0, 0] * 0)
    assert working_numerics(nn.Conv2d(3, 4, 3), rgb_split(), LAST, task=task)[0] == PLAIN


def test_a_network_of_view_is_trained_and_distilled():
    train, search = rgb_split(TrainSplit), rgb_split()
    torch.manual_seed(0)
    teacher, student = Fixed(), Fixed()
    (record,) = train_base(teacher, train, search, TrainConfig(epochs=1, batch_size=8), 0)
    assert record.search == score(teacher, search)
    done = distil(teacher, student, train, search, FinetuneConfig(epochs=1, batch_size=8), 0)
    assert done.best.search == score(student, search)
