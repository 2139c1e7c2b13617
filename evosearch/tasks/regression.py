"""Regression: squared error, and the share of the labels' variance that outputs explain."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from evosearch.errors import InputError
from evosearch.study.scores import Measure, Reals
from evosearch.tasks.task import Task


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Returns the squared error of each image, the mean over its numbers, `(images,)`.

    Args:
        output: `(images, ...)`.
        target: as the output, or without its last dimension of one number.

    Raises:
        InputError: their shapes do not fit.
    """
    found, wanted = _rows(output, target)
    return functional.mse_loss(found, wanted, reduction="none").mean(1)


def residuals(output: Tensor, target: Tensor) -> Tensor:
    """Returns the squared errors and then the labels of each image, `(images, 2 numbers)`.

    Args:
        output: `(images, ...)`.
        target: as the output, or without its last dimension of one number.

    Raises:
        InputError: their shapes do not fit.
    """
    found, wanted = _rows(output.double(), target)
    return torch.cat([(found - wanted).square(), wanted], dim=1)


def determination(statistics: Reals) -> float:
    """Returns the coefficient of determination, 0 where it is under that.

    `1 - sum (y - output)^2 / sum (y - mean y)^2`, the mean over the numbers of an image; a number
    that is the same for all images does not count.

    Args:
        statistics: of `residuals`, `(images, 2 numbers)`.
    """
    errors, labels = np.split(statistics, 2, axis=1)
    spread = np.square(labels - labels.mean(0)).sum(0)
    varies = spread > 0
    if not varies.any():
        return 0.0
    return max(0.0, float((1 - errors.sum(0)[varies] / spread[varies]).mean()))


def squared_difference(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ARG001
    """Returns the mean squared difference of outputs, as Ba and Caruana 2014 match logits.

    Args:
        student: outputs.
        teacher: outputs.
        temperature: of logits, which these are not.
    """
    return functional.mse_loss(student, teacher)


DETERMINATION = Measure(name="R2", pooled=determination)
"""Coefficient of determination."""
REGRESSION = Task(
    loss=squared_error, metric=residuals, measure=DETERMINATION, distil=squared_difference
)
"""Squared error and coefficient of determination."""


def _rows(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Returns outputs and labels as `(images, numbers)`."""
    if output.shape not in (target.shape, (*target.shape, 1)):
        raise InputError(
            f"expected outputs of shape {tuple(target.shape)}, as the labels have, got"
            f" {tuple(output.shape)}"
        )
    count = len(target)
    return output.reshape(count, -1), target.reshape(count, -1).to(output.dtype)
