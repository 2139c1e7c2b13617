"""Segmentation: cross-entropy and intersection over union of the classes of pixels."""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from evosearch.errors import InputError
from evosearch.study.scores import Measure, Reals
from evosearch.tasks.task import Task

IGNORED = 255
"""The label of pixels that do not count, as datasets of outlines have it."""


def segmentation(ignore: int = IGNORED) -> Task:
    """Returns the task whose pixels of the label `ignore` do not count."""
    return Task(
        loss=partial(pixel_cross_entropy, ignore=ignore),
        metric=partial(overlaps, ignore=ignore),
        measure=MEAN_IOU,
    )


def pixel_cross_entropy(output: Tensor, target: Tensor, *, ignore: int = IGNORED) -> Tensor:
    """Returns the cross-entropy of each image in nats, the mean over its pixels, `(images,)`.

    Args:
        output: logits, `(images, classes, height, width)`.
        target: classes, `(images, height, width)`.
        ignore: the label of pixels that do not count; an image of such alone has a loss of 0.

    Raises:
        InputError: these are no logits for the labels.
    """
    classes = _require_maps(output, target, ignore)
    each = functional.cross_entropy(output, classes, ignore_index=ignore, reduction="none")
    counted = (classes != ignore).flatten(1).sum(1).clamp(min=1)
    return each.flatten(1).sum(1) / counted


def overlaps(output: Tensor, target: Tensor, *, ignore: int = IGNORED) -> Tensor:
    """Returns the intersections and then the unions of each image, `(images, 2 classes)`.

    They are the pixels of a class in both, and in either, of labels and largest logits.

    Args:
        output: logits, `(images, classes, height, width)`.
        target: classes, `(images, height, width)`.
        ignore: the label of pixels that do not count, nor as a class where it is one.

    Raises:
        InputError: these are no logits for the labels.
    """
    classes, count = _require_maps(output, target, ignore), output.shape[1]
    rows = []
    for predicted, true in zip(output.argmax(1), classes, strict=True):
        counts = true != ignore
        pairs = (true[counts] * count + predicted[counts]).bincount(minlength=count * count)
        table = pairs.reshape(count, count)
        both = table.diagonal()
        either = table.sum(0) + table.sum(1) - both
        if 0 <= ignore < count:
            either[ignore] = 0
        rows.append(torch.cat([both, either]))
    return torch.stack(rows)


def mean_iou(statistics: Reals) -> float:
    """Returns the mean over classes of intersection over union, each summed over images.

    A class that no pixel has, by label or output, does not count.

    Args:
        statistics: of `overlaps`, `(images, 2 classes)`.
    """
    both, either = np.split(statistics.sum(0), 2)
    found = either > 0
    return float((both[found] / either[found]).mean()) if found.any() else 0.0


MEAN_IOU = Measure(name="mIoU", pooled=mean_iou)
"""Mean intersection over union."""


def _require_maps(output: Tensor, target: Tensor, ignore: int) -> Tensor:
    """Returns the labels of pixels as int64."""
    if target.ndim != 3 or target.is_floating_point() or target.dtype == torch.bool:
        raise InputError(
            f"labels of shape {tuple(target.shape)} and type {target.dtype} are no classes of"
            " pixels, (images, height, width) integers"
        )
    wanted = len(target), *target.shape[1:]
    if output.ndim != 4 or (len(output), *output.shape[2:]) != wanted:
        raise InputError(
            f"expected logits ({wanted[0]}, classes, {wanted[1]}, {wanted[2]}) from the model, got"
            f" {tuple(output.shape)}"
        )
    classes = target.long()
    counted = classes[classes != ignore]
    ends = (int(counted.min()), int(counted.max())) if len(counted) else (0, 0)
    if ends[0] < 0 or ends[1] >= output.shape[1]:
        odd = ends[0] if ends[0] < 0 else ends[1]
        raise InputError(
            f"the data has label {odd}, the model only {output.shape[1]} classes; the label that"
            f" does not count is {ignore}, by [task] ignore"
        )
    return classes
