"""Detection: mean average precision of boxes, as COCO has it.

Lin et al. 2014 (arXiv 1405.0312), by the rules of the evaluation that comes with that data set:
each box, by falling score, takes the free true box of its class that it overlaps most, where the
intersection over union is a threshold at least; the precision at a recall is the best at that
recall or a higher one, and the average precision its mean over 101 recalls from 0 to 1.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evosearch.errors import InputError
from evosearch.study.scores import Measure, Reals
from evosearch.tasks.ownlosses import summed_losses
from evosearch.tasks.task import Judge, Task

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Of the intersection over union from which boxes match."""
RECALLS = np.linspace(0, 1, 101)
"""That precisions are averaged over."""
MOST = 100
"""Boxes of a class in one image that count: those of the highest scores."""
_NUMBERS = 3
"""That statistics have of a box: class; score, or NaN of a true one; its matches, as bits."""
_AT_ONCE = 2**21
"""Boxes of all choices that are counted at a time: some 16 MiB for each array of them."""
_BITS = 1 << np.arange(len(THRESHOLDS))

Boxes = Sequence[Mapping[str, Tensor]]
"""Of each image `boxes` `(boxes, 4)`, left, top, right and bottom, `labels` `(boxes,)`, and where
they are predicted `scores` `(boxes,)`."""


def detection(
    loss: Judge | None = None, predictions: Callable[[Any], Boxes] | None = None
) -> Task:
    """Returns the task of a detector; by default of one that is called as torchvision's are.

    Args:
        loss: see `TaskConfig`.
        predictions: likewise.
    """
    return Task(
        loss=loss,
        metric=partial(matches, predictions=predictions or _everything),
        measure=MAP,
        output=_everything,
        collate=list,
        distil=None,
        training_loss=summed_losses if loss is None else None,
    )


def matches(output: Any, target: Boxes, *, predictions: Callable[[Any], Boxes]) -> Tensor:
    """Returns three numbers for each true and each predicted box, `(images, 3 boxes)`.

    They are its class, its score (NaN of a true box), and at which thresholds it matches, as
    bits. Images with fewer boxes than others end in NaN.

    Args:
        output: of the network.
        target: the true boxes.
        predictions: gives the predicted ones.

    Raises:
        InputError: these are no boxes of images.
    """
    found = predictions(output)
    if not isinstance(found, tuple | list) or len(found) != len(target):
        came = f"of {len(found)}" if isinstance(found, tuple | list) else type(found).__name__
        raise InputError(
            f"[task] predictions: expected a list of {len(target)} images' boxes, got {came}"
        )
    rows = []
    for own, true in zip(found, target, strict=True):
        boxes, labels, scores = _arrays("[task] predictions", own, ("boxes", "labels", "scores"))
        true_boxes, true_labels = _arrays("labels of an image", true, ("boxes", "labels"))
        if not np.isfinite(np.column_stack([true_boxes, true_labels])).all():
            raise InputError("labels of an image: boxes and labels must be finite")
        # A box that is not finite is none; NaN marks true boxes, and rows that are not there.
        real = np.isfinite(np.column_stack([boxes, labels, scores])).all(1)
        boxes, labels, scores = boxes[real], labels[real], scores[real]
        chosen = _counted(labels, scores)
        bits = _matched(boxes[chosen], labels[chosen], true_boxes, true_labels)
        predicted = np.stack([labels[chosen], scores[chosen], bits], axis=1)
        rows.append(np.concatenate([_true_rows(true_labels), predicted]).ravel())
    width = max(map(len, rows), default=0)
    filled = [np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows]
    return torch.from_numpy(np.stack(filled))


def average_precision(statistics: Reals, *, thresholds: int = len(THRESHOLDS)) -> float:
    """Returns the mean average precision over classes that have true boxes, and thresholds.

    Args:
        statistics: of `matches`, `(images, 3 boxes)`.
        thresholds: how many of `THRESHOLDS` count, from the first on.
    """
    once = np.ones((1, len(statistics)), dtype=np.int64)
    return float(average_precisions(statistics, once, thresholds=thresholds)[0])


def average_precisions(
    statistics: Reals, counts: NDArray[np.int64], *, thresholds: int = len(THRESHOLDS)
) -> Reals:
    """Returns the mean average precision of several choices of images, `(choices,)`.

    Boxes are sorted once. A box of an image that is chosen twice counts as two of equal score, one
    after the other; of images with equal scores the first comes first.

    Args:
        statistics: of `matches`, `(images, 3 boxes)`.
        counts: how often each choice has each image, `(choices, images)`.
        thresholds: how many of `THRESHOLDS` count, from the first on.
    """
    rows = statistics.reshape(-1, _NUMBERS)
    images = np.repeat(np.arange(len(statistics)), len(rows) // max(1, len(statistics)))
    there = ~np.isnan(rows[:, 0])
    rows, images = rows[there], images[there]
    is_true = np.isnan(rows[:, 1])
    true, true_images = rows[is_true, 0], images[is_true]
    order = np.flatnonzero(~is_true)[np.argsort(-rows[~is_true, 1], kind="stable")]
    labels, bits, images = rows[order, 0], rows[order, 2].astype(np.int64), images[order]
    total, classes = np.zeros(len(counts)), np.zeros(len(counts))
    by_image = np.ascontiguousarray(counts.T, dtype=np.int32)
    for label in np.unique(true):
        own = labels == label
        right = (bits[own, None] & _BITS[:thresholds]) > 0
        size = max(1, _AT_ONCE // max(1, len(right)))
        for part in (slice(first, first + size) for first in range(0, len(counts), size)):
            truths = by_image[true_images[true == label], part].sum(0)
            total[part] += _averages(by_image[images[own], part], right, truths)
            classes[part] += truths > 0
    return total / np.maximum(classes, 1)


MAP = Measure(name="mAP", pooled=average_precision, chosen=average_precisions)
"""Mean average precision over intersections over union from 0.5 to 0.95."""
MAP50 = Measure(
    name="mAP50",
    pooled=partial(average_precision, thresholds=1),
    chosen=partial(average_precisions, thresholds=1),
)
"""Mean average precision at an intersection over union of 0.5."""


def _averages(
    counts: NDArray[np.int32], right: NDArray[np.bool_], truths: NDArray[np.int64]
) -> Reals:
    """Returns the average precision of a class, the mean over thresholds, `(choices,)`.

    Precision rises with every box that matches and falls with every other, so the best one from a
    recall on is that of a box that matches.

    Args:
        counts: how often each choice has each box, by falling score, `(boxes, choices)`.
        right: whether each box matches, `(boxes, thresholds)`.
        truths: number of true boxes of each choice; where it is 0, so is what is returned.
    """
    choices = np.arange(len(truths))
    most = np.arange(truths.max() + 1)[:, None]
    # How many recalls are reached by so many boxes that match.
    reached = np.searchsorted(RECALLS, most / np.maximum(truths, 1), side="right")
    before, found = counts.cumsum(0, dtype=np.int32), np.zeros(len(truths))
    for column in right.T:
        if not column.any():
            continue
        hits = counts[column].cumsum(0, dtype=np.int32)
        precisions = hits / np.maximum(before[column], 1)
        best = np.maximum.accumulate(precisions[::-1])[::-1]
        found += (best * np.diff(reached[hits, choices], axis=0, prepend=0)).sum(0)
    averages: Reals = found / (len(RECALLS) * right.shape[1])
    return averages


def _matched(boxes: Reals, labels: Reals, true_boxes: Reals, true_labels: Reals) -> Reals:
    """Returns at which thresholds each box matches a true one, as bits.

    Args:
        boxes: by falling score, `(boxes, 4)`.
        labels: of them.
        true_boxes: `(true boxes, 4)`.
        true_labels: of them.
    """
    overlap = _overlaps(boxes, true_boxes)
    overlap[labels[:, None] != true_labels] = -1
    bits = np.zeros(len(boxes))
    if not len(true_boxes):
        return bits
    free = np.ones((len(THRESHOLDS), len(true_boxes)), dtype=bool)
    at = np.arange(len(THRESHOLDS))
    last = len(true_boxes) - 1
    for box, own in enumerate(overlap):
        open_to = np.where(free & (own >= THRESHOLDS[:, None]), own, -1)
        best = last - open_to[:, ::-1].argmax(1)  # of equal ones the last
        hit = open_to[at, best] >= 0
        free[at[hit], best[hit]] = False
        bits[box] = _BITS[hit].sum()
    return bits


def _overlaps(boxes: Reals, others: Reals) -> Reals:
    """Returns intersections over unions, `(boxes, others)`; 0 of two boxes without area."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    both = (high - low).clip(0).prod(2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).clip(0).prod(1) for b in (boxes, others))
    either = areas[:, None] + other_areas - both
    found: Reals = both / np.where(either > 0, either, 1)
    return found


def _counted(labels: Reals, scores: Reals) -> NDArray[np.intp]:
    """Returns the positions of the boxes that count, by falling score."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.zeros(len(order), dtype=np.intp)
    for label in np.unique(labels):
        own = labels[order] == label
        ranks[own] = np.arange(own.sum())
    return order[ranks < MOST]


def _true_rows(labels: Reals) -> Reals:
    return np.stack([labels, np.full(len(labels), np.nan), np.zeros(len(labels))], axis=1)


def _arrays(where: str, given: Any, names: Sequence[str]) -> list[Reals]:
    """Returns tensors by name as float64, with as many rows each."""
    if not isinstance(given, Mapping) or any(name not in given for name in names):
        came = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise InputError(f"{where}: expected a dict of {', '.join(names)}, got {came}")
    found = [torch.as_tensor(given[name]).detach().cpu().double().numpy() for name in names]
    shapes = [tuple(values.shape) for values in found]
    count = len(found[1]) if found[1].ndim else 0
    if shapes != [(count, 4), *[(count,)] * (len(names) - 1)]:
        said = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
        raise InputError(f"{where}: expected boxes (n, 4), others (n,), got {said}")
    return found


def _everything(returned: Any) -> Any:
    return returned
