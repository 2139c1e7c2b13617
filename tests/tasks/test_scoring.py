import math

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.data.splits import SearchSplit
from evosearch.errors import EvaluationError, InputError
from evosearch.models.modes import evaluating
from evosearch.tasks.scoring import image_scores, score
from tests.data import helpers


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
