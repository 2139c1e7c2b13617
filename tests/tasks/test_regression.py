"""Squared errors and R2 by hand, and against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from evosearch.data import splits as data
from evosearch.errors import InputError
from evosearch.tasks.regression import (
    REGRESSION,
    determination,
    residuals,
    squared_difference,
    squared_error,
)
from evosearch.tasks.scoring import image_scores
from evosearch.training.objective import distillation_loss
from tests.data.helpers import split_of


def test_errors_by_hand():
    output, target = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0])
    assert squared_error(output, target).tolist() == [1.0, 4.0]
    assert squared_error(output[:, 0], target).tolist() == [1.0, 4.0]
    pairs = torch.tensor([[1.0, 3.0]])
    assert squared_error(pairs, torch.zeros(1, 2)).tolist() == [5.0]
    # The labels' spread is 2^2 + 2^2.
    assert determination(residuals(output, target).numpy()) == pytest.approx(1 - 5 / 8)


@pytest.mark.parametrize("numbers", [1, 3])
def test_it_is_that_of_scikit_learn(numbers):
    rng = np.random.default_rng(0)
    target = rng.normal(100, 2, (40, numbers))
    output = target + rng.normal(0, 1, target.shape)
    found = determination(residuals(torch.tensor(output), torch.tensor(target)).numpy())
    assert found == pytest.approx(r2_score(target, output), abs=1e-9)


def test_worse_than_the_mean_is_nothing():
    target = torch.tensor([0.0, 1.0])
    assert determination(residuals(torch.tensor([5.0, -5.0]), target).numpy()) == 0.0
    assert determination(residuals(torch.ones(2), torch.ones(2)).numpy()) == 0.0


def test_a_network_is_scored_and_distilled():
    images = torch.tensor([[0.0], [1.0], [2.0]])[:, None, :, None]
    split = split_of(data.SearchSplit, images, np.array([0.0, 1.0, 3.0]))
    scores = image_scores(torch.nn.Flatten(), split, task=REGRESSION)
    assert scores.losses.tolist() == [0.0, 0.0, 1.0]
    spread = np.square(np.array([0, 1, 3]) - 4 / 3).sum()
    assert scores.score.accuracy == pytest.approx(1 - 1 / spread)
    assert scores.score.metric == "R2"
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    assert squared_difference(student, teacher, 4.0).item() == 2.5
    options = {"temperature": 4.0, "alpha": 0.25, "task": REGRESSION}
    both = distillation_loss(student, teacher, torch.tensor([1.0, 1.0]), **options)
    assert both.item() == pytest.approx(0.75 * 2 + 0.25 * 2.5)


def test_shapes_that_do_not_fit():
    message = r"expected outputs of shape \(2, 3\), as the labels have, got \(2, 2\)"
    with pytest.raises(InputError, match=message):
        squared_error(torch.zeros(2, 2), torch.zeros(2, 3))
