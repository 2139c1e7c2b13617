"""Mean average precision by hand, and against the evaluation that comes with COCO."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from evosearch.data import splits as data
from evosearch.data.labels import read_labels
from evosearch.errors import InputError
from evosearch.study.scores import ImageScores, joined
from evosearch.tasks.detection import (
    MAP,
    MAP50,
    MOST,
    detection,
    matches,
)
from evosearch.tasks.scoring import image_scores
from tests.data.helpers import images_of

SQUARE = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.75]
"""It overlaps SQUARE by 0.575."""
AWAY = [20.0, 20.0, 30.0, 30.0]


def image(boxes, labels, scores=None):
    found = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    if scores is not None:
        found["scores"] = torch.tensor(scores, dtype=torch.float32)
    return found


def statistics(predicted, true):
    return matches(predicted, true, predictions=lambda output: output).numpy()


def value(measure, predicted, true):
    return measure.value(statistics(predicted, true))


def test_a_box_that_is_right_and_one_that_is_not():
    true = [image([SQUARE, AWAY], [1, 1])]
    # The first is right, the second is not: half of the recalls have a precision of 1.
    predicted = [image([SQUARE, [50.0, 50, 60, 60]], [1, 1], [0.9, 0.8])]
    assert value(MAP, predicted, true) == pytest.approx(51 / 101)
    # In the other order the one that is right has a precision of a half.
    predicted = [image([SQUARE, [50.0, 50, 60, 60]], [1, 1], [0.8, 0.9])]
    assert value(MAP, predicted, true) == pytest.approx(51 / 101 / 2)


def test_an_overlap_counts_at_the_thresholds_up_to_it():
    true, predicted = [image([SQUARE], [2])], [image([HALF], [2], [0.5])]
    assert value(MAP50, predicted, true) == pytest.approx(1.0)
    assert value(MAP, predicted, true) == pytest.approx(0.2)  # at 0.5 and 0.55
    assert value(MAP, [image([HALF], [3], [0.5])], true) == 0.0


def test_a_box_that_is_not_finite_is_none():
    true = [image([SQUARE], [1])]
    predicted = [image([SQUARE, AWAY], [1, 1], [0.9, math.nan])]
    assert value(MAP, predicted, true) == pytest.approx(1.0)
    with pytest.raises(InputError, match="labels of an image: boxes and labels must be finite"):
        statistics(predicted, [image([[math.inf, 0, 1, 1]], [1])])


def test_a_true_box_is_found_once():
    true = [image([SQUARE], [0])]
    twice = [image([SQUARE, SQUARE], [0, 0], [0.9, 0.8])]
    assert value(MAP, twice, true) == pytest.approx(1.0)
    # A second copy before another object's box costs precision.
    true = [image([SQUARE, AWAY], [0, 0])]
    predicted = [image([SQUARE, SQUARE, AWAY], [0, 0, 0], [0.9, 0.8, 0.7])]
    assert value(MAP, predicted, true) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_classes_without_true_boxes_and_images_without_boxes():
    true = [image([SQUARE], [0]), image([], [])]
    predicted = [image([SQUARE], [0], [0.9]), image([], [], [])]
    assert value(MAP, predicted, true) == pytest.approx(1.0)
    predicted[1] = image([SQUARE], [7], [0.99])
    assert value(MAP, predicted, true) == pytest.approx(1.0)
    assert value(MAP, predicted[1:], true[1:]) == 0.0
    predicted[1] = image([SQUARE], [0], [0.99])
    assert value(MAP, predicted, true) == pytest.approx(0.5)


def scenes(seed, count=12, *, ties=True):
    """Returns predicted and true boxes that overlap by chance, some of them by much.

    Scores are of few digits, so that some are equal; or none are.
    """
    rng = np.random.default_rng(seed)
    predicted, true = [], []
    for _ in range(count):
        corners = rng.uniform(0, 40, (rng.integers(0, 6), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(12, 30, corners.shape)], axis=1)
        labels = rng.integers(0, 3, len(boxes))
        true.append(image(boxes.tolist(), labels.tolist()))
        copies = rng.integers(0, len(boxes), 2 * len(boxes)) if len(boxes) else []
        guesses = boxes[copies] + rng.normal(0, 1.5, (len(copies), 4)) if len(boxes) else boxes
        turned = rng.random(len(copies)) < 0.2
        kinds = np.where(turned, rng.integers(0, 3, len(copies)), labels[copies])
        scores = rng.integers(0, 40, len(copies)) / 40 if ties else rng.random(len(copies))
        predicted.append(image(guesses.tolist(), kinds.tolist(), scores.tolist()))
    return predicted, true


def by_coco(predicted, true):
    """Returns mAP and mAP50 by the evaluation that comes with COCO."""
    coco = pytest.importorskip("pycocotools.coco", reason="needs evosearch[dev]")
    evaluation = pytest.importorskip("pycocotools.cocoeval")

    def entries(images):
        for number, own in enumerate(images):
            for box, label in zip(own["boxes"].double(), own["labels"], strict=True):
                left, top, right, bottom = box.tolist()
                width, height = right - left, bottom - top
                yield {
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }

    def dataset(images, scores):
        made = coco.COCO()
        rows = zip(entries(images), scores, strict=True)
        made.dataset = {
            "images": [{"id": number} for number in range(len(images))],
            "categories": [{"id": label} for label in range(3)],
            "annotations": [
                {**row, "id": 1 + i, "score": score} for i, (row, score) in enumerate(rows)
            ],
        }
        made.createIndex()
        return made

    count = sum(len(own["labels"]) for own in true)
    found = [score for own in predicted for score in own["scores"].tolist()]
    judged = evaluation.COCOeval(dataset(true, [0] * count), dataset(predicted, found), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    return judged.stats[:2]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_that_of_coco(seed):
    predicted, true = scenes(seed)
    wanted = by_coco(predicted, true)
    assert 0.1 < wanted[0] < 0.9
    assert value(MAP, predicted, true) == pytest.approx(wanted[0], abs=1e-9)
    assert value(MAP50, predicted, true) == pytest.approx(wanted[1], abs=1e-9)


@pytest.mark.parametrize("at_once", [1, 2**21])
@pytest.mark.parametrize("measure", [MAP, MAP50])
def test_the_bootstrap_is_that_of_every_choice_by_itself(measure, at_once, monkeypatch):
    monkeypatch.setattr("evosearch.tasks.detection._AT_ONCE", at_once)
    predicted, true = scenes(5, ties=False)
    rows = statistics(predicted, true)
    naive = replace(measure, chosen=None).resampled(rows)
    assert len(set(naive)) > 100
    np.testing.assert_allclose(measure.resampled(rows), naive, rtol=0, atol=1e-12)


def test_a_choice_of_images_is_judged_as_coco_judges_it():
    predicted, true = scenes(6, ties=False)
    chosen = [0, 0, 3, 4, 4, 4, 7, 8, 9, 10, 11, 11]
    counts = np.bincount(chosen, minlength=12)[None]
    wanted = by_coco([predicted[i] for i in chosen], [true[i] for i in chosen])
    rows = statistics(predicted, true)
    assert 0.1 < wanted[0] < 0.9
    assert MAP.chosen(rows, counts) == pytest.approx(wanted[0], abs=1e-9)
    assert MAP50.chosen(rows, counts) == pytest.approx(wanted[1], abs=1e-9)


def test_a_choice_without_true_boxes_is_worth_nothing():
    rows = statistics(
        [image([SQUARE], [0], [0.9]), image([], [], [])], [image([], []), image([SQUARE], [0])]
    )
    counts = np.array([[2, 0], [0, 2], [1, 1]])
    assert MAP.chosen(rows, counts).tolist() == [0, 0, 0]
    rows = statistics([image([SQUARE], [0], [0.9])] * 2, [image([SQUARE], [0]), image([], [])])
    assert MAP.chosen(rows, counts) == pytest.approx([1, 0, 1])


def test_only_the_best_boxes_of_a_class_in_an_image_count():
    true = [image([SQUARE], [0])]
    crowd = [image([AWAY] * MOST + [SQUARE], [0] * (MOST + 1), [0.9] * MOST + [0.1])]
    assert value(MAP, crowd, true) == 0.0
    crowd = [image([AWAY] * MOST + [SQUARE], [1] * MOST + [0], [0.9] * MOST + [0.1])]
    assert value(MAP, crowd, true) == pytest.approx(1.0)


def test_parts_of_a_split_are_pooled_as_the_whole():
    predicted, true = scenes(7)
    whole = statistics(predicted, true)
    parts = [statistics(predicted[i : i + 5], true[i : i + 5]) for i in range(0, 12, 5)]
    assert MAP.value(joined(parts)) == MAP.value(whole)
    order = np.random.default_rng(0).permutation(12)
    shuffled = statistics([predicted[i] for i in order], [true[i] for i in order])
    # Of equal scores those of the earlier image come first, as COCO has it.
    assert MAP.value(shuffled) == pytest.approx(MAP.value(whole), abs=0.02)


def test_a_detector_is_scored_on_a_split():
    true = scenes(3, 8)[1]
    split = data.SearchSplit(
        images=images_of(torch.zeros(8, 1, 2, 2)),
        labels=read_labels(true),
        indices=torch.arange(8),
    )

    def loss(output, target):
        assert isinstance(target, list)
        return torch.tensor([float(len(own["labels"])) for own in target])

    def predictions(output):
        assert output["heat"].shape[1:] == (1, 2, 2)
        return [image([SQUARE], [0], [0.5])] * len(output["heat"])

    class Heat(torch.nn.Module):
        def forward(self, images):
            return {"heat": images}

    model = Heat()
    model.weight = torch.nn.Parameter(torch.zeros(()))
    scores = image_scores(model, split, task=detection(loss, predictions), batch_size=3)
    assert scores.losses.tolist() == [len(own["labels"]) for own in true]
    whole = statistics([image([SQUARE], [0], [0.5])] * 8, true)
    assert scores.score.accuracy == MAP.value(whole)
    assert (scores.score.metric, scores.score.pooled) == ("mAP", True)
    halves = scores.between(0, 3).then(scores.between(3, 8))
    assert isinstance(halves, ImageScores)
    assert halves.score == scores.score


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda output: [], r"predictions: expected a list of 1 images' boxes, got of 0"),
        (lambda output: 3, "got int"),
        (lambda output: [{"boxes": 1}], r"expected a dict of boxes, labels, scores, got \['box"),
        (lambda output: [image([SQUARE], [1, 2], [0.5])], r"expected boxes \(n, 4\), others"),
    ],
)
def test_predictions_that_are_no_boxes(found, message):
    with pytest.raises(InputError, match=message):
        partial(matches, predictions=found)(None, [image([SQUARE], [1])])
