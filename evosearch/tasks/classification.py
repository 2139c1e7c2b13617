"""Classification: cross-entropy and accuracy of logits."""

import torch
from torch import Tensor
from torch.nn import functional

from evosearch.data.labels import Labels
from evosearch.errors import InputError
from evosearch.tasks.task import Task


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy of each image in nats, `(images,)`.

    Args:
        output: logits, `(images, classes)`.
        target: int64, `(images,)`.

    Raises:
        InputError: these are no logits for the labels.
    """
    _require_logits(output, target)
    try:
        return functional.cross_entropy(output, target, reduction="none")
    except IndexError:  # found by torch on its way: to look at labels is to wait for a GPU
        _require_classes(output, target)
        raise


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Returns 1 where the largest logit is the label's and 0 elsewhere, `(images,)`.

    Raises:
        InputError: these are no logits for the labels.
    """
    _require_logits(output, target)
    _require_classes(output, target)
    return (output.argmax(1) == target).double()


CLASSIFICATION = Task(loss=cross_entropy, metric=accuracy)
"""Cross-entropy and accuracy of logits."""


def chance_level(task: Task, labels: Labels) -> float | None:
    """Returns the accuracy of guessing the commonest class; None for any other metric.

    Args:
        task: what networks are judged by.
        labels: of the images.
    """
    if task.metric is not accuracy or not isinstance(labels, Tensor):
        return None
    return float(labels.bincount().max()) / len(labels)


def _require_logits(output: Tensor, target: Tensor) -> None:
    if target.ndim != 1 or target.dtype != torch.int64:
        raise InputError(
            f"labels of shape {tuple(target.shape)} and type {target.dtype} are no classes; give"
            " [task] loss and metric"
        )
    if output.ndim != 2 or len(output) != len(target):
        raise InputError(
            f"expected logits ({len(target)}, classes) from the model, got {tuple(output.shape)};"
            " for another task give [task] loss, metric or output"
        )


def _require_classes(output: Tensor, target: Tensor) -> None:
    if int(target.max()) >= output.shape[1]:
        raise InputError(
            f"the data has label {int(target.max())}, the model only {output.shape[1]} classes"
        )
