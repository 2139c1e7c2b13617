"""Loss and mIoU of pixels by hand, and against scikit-learn's Jaccard scores."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from evosearch.data import splits as data
from evosearch.errors import InputError
from evosearch.tasks.scoring import image_scores
from evosearch.tasks.segmentation import (
    MEAN_IOU,
    mean_iou,
    overlaps,
    pixel_cross_entropy,
    segmentation,
)
from tests.data.helpers import split_of


def logits(classes, count):
    """Returns logits whose largest is that of each pixel's class."""
    return 5.0 * torch.nn.functional.one_hot(torch.tensor(classes), count).movedim(-1, 1)


def test_intersections_and_unions_by_hand():
    output = logits([[[0, 1], [1, 1]]], 3)
    target = torch.tensor([[[0, 1], [0, 255]]], dtype=torch.uint8)
    # Class 0: one pixel in both, two in either; class 1: one and two; class 2: none.
    assert overlaps(output, target).tolist() == [[1, 1, 0, 2, 2, 0]]
    assert mean_iou(overlaps(output, target).double().numpy()) == 0.5
    assert mean_iou(np.zeros((2, 6))) == 0.0


def test_a_class_that_is_ignored_is_none_of_the_mean():
    output, target = logits([[[1, 0], [2, 2]]], 3), torch.tensor([[[1, 1], [2, 0]]])
    # Class 1: one pixel in both, two in either; class 2: one and one; the last pixel is no one's.
    assert mean_iou(overlaps(output, target, ignore=0).double().numpy()) == 0.75


def test_the_loss_is_the_mean_over_pixels_that_count():
    output = torch.zeros(2, 4, 1, 3)
    output[0, 2, 0, 0] = math.log(3)  # half of the probability is class 2's
    target = torch.tensor([[[2, 255, 0]], [[255, 255, 255]]])
    losses = pixel_cross_entropy(output, target)
    assert losses.tolist() == pytest.approx([(math.log(2) + math.log(4)) / 2, 0.0])


def test_it_is_that_of_scikit_learn():
    rng = torch.Generator().manual_seed(0)
    output = torch.randn(6, 5, 7, 9, generator=rng)
    target = torch.randint(0, 5, (6, 7, 9), generator=rng)
    found = mean_iou(overlaps(output, target).double().numpy())
    wanted = jaccard_score(target.flatten(), output.argmax(1).flatten(), average="macro")
    assert found == pytest.approx(wanted, abs=1e-12)


def test_a_network_is_scored_by_all_pixels_together():
    images = torch.randn(5, 3, 4, 4)
    target = torch.randint(0, 3, (5, 4, 4), generator=torch.Generator().manual_seed(1))
    target[2] = 255
    model = torch.nn.Conv2d(3, 3, 1)
    split = split_of(data.SearchSplit, images, target)
    scores = image_scores(model, split, task=segmentation(), batch_size=2)
    with torch.no_grad():
        output = model(images)
    assert scores.losses[2] == 0
    assert scores.score.accuracy == MEAN_IOU.value(overlaps(output, target).double().numpy())
    assert (scores.score.metric, scores.score.pooled) == ("mIoU", True)


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        ((2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), r"shape \(2,\) .* no classes of pixels"),
        ((2, 3, 4, 4), torch.zeros(2, 4, 4), "type torch.float32 are no classes of pixels"),
        (
            (2, 3, 2, 2),
            torch.zeros(2, 4, 4, dtype=torch.uint8),
            r"expected logits \(2, classes, 4, 4\) from the model, got \(2, 3, 2, 2\)",
        ),
        (
            (1, 3, 1, 1),
            torch.full((1, 1, 1), 7),
            "the data has label 7, the model only 3 classes; the label .* is 255, by .* ignore",
        ),
        ((1, 3, 1, 1), torch.full((1, 1, 1), -1), "the data has label -1"),
    ],
)
def test_labels_and_outputs_that_do_not_fit(output, target, message):
    for judge in (pixel_cross_entropy, overlaps):
        with pytest.raises(InputError, match=message):
            judge(torch.zeros(output), target)
