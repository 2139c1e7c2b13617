"""Loss and metric of a network on a split, with standard errors, image by image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evosearch.errors import EvaluationError, InputError
from evosearch.evaluation.data import (
    CalibrationSplit,
    SearchSplit,
    Split,
    TrainSplit,
    require_split,
)
from evosearch.evaluation.task import CLASSIFICATION, Task

BATCH_SIZE = 128
"""Images per forward pass: batches of 64 to 128 are up to 3 x faster per image than 512."""


@final
@dataclass(frozen=True, kw_only=True)
class Score:
    """What a network is worth on some images.

    Attributes:
        loss: mean over images; of cross-entropy in nats, where the task has no loss of its own.
        loss_se: its standard error over images.
        accuracy: share of images classified right, or the mean of the task's own metric; in
            [0, 1].
        accuracy_se: its standard error over images.
        images: number of images.
    """

    loss: float
    loss_se: float
    accuracy: float
    accuracy_se: float
    images: int


@final
@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """The outcome of every image, which lets two networks be compared image by image.

    Attributes:
        losses: of the task, `(images,)`.
        metrics: of the task, `(images,)`, in [0, 1]; for classes 1 where right, 0 where wrong.
    """

    losses: NDArray[np.float64]
    metrics: NDArray[np.float64]

    @property
    def score(self) -> Score:
        """Means and standard errors (sample standard deviation over the root of the count).

        Raises:
            InputError: there are fewer than two images.
        """
        count = len(self.losses)
        if count < 2:
            raise InputError(f"a score needs at least two images, got {count}")
        return Score(
            loss=float(self.losses.mean()),
            loss_se=float(self.losses.std(ddof=1) / count**0.5),
            accuracy=float(self.metrics.mean()),
            accuracy_se=float(self.metrics.std(ddof=1) / count**0.5),
            images=count,
        )


def score(
    model: nn.Module,
    split: SearchSplit | CalibrationSplit | TrainSplit,
    *,
    task: Task = CLASSIFICATION,
    batch_size: int = BATCH_SIZE,
) -> Score:
    """Returns the loss and accuracy of a network on a split; never on the test split.

    Args:
        model: left in the mode that it was in.
        split: scored whole and without augmentation.
        task: what the outputs are judged by.
        batch_size: images per forward pass.

    Raises:
        TypeError: `split` is a `TestSplit`.
        EvaluationError: a loss is not finite.
        InputError: the outputs do not fit the task.
    """
    require_split(split, SearchSplit, CalibrationSplit, TrainSplit)
    return image_scores(model, split, task=task, batch_size=batch_size).score


def image_scores(
    model: nn.Module,
    split: Split,
    *,
    task: Task = CLASSIFICATION,
    batch_size: int = BATCH_SIZE,
) -> ImageScores:
    """Returns the loss and metric of every image of any split, the test split included.

    Args:
        model: left in the mode that it was in.
        split: scored whole and without augmentation.
        task: what the outputs are judged by, on the CPU and as float32.
        batch_size: images per forward pass.

    Raises:
        EvaluationError: a loss is not finite.
        InputError: the outputs do not fit the task.
    """
    place = device_of(model)
    losses, metrics = [], []
    with evaluation_mode(model), torch.inference_mode():
        for images, targets in split.batches(batch_size):
            output = task.outputs(model(images.to(place))).float().cpu()
            losses.append(task.losses(output, targets))
            metrics.append(task.metrics(output, targets))
    values = torch.cat(losses).double().numpy()
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise EvaluationError(f"the loss is not finite on {broken} of {len(values)} images")
    return ImageScores(losses=values, metrics=torch.cat(metrics).numpy())


def device_of(model: nn.Module) -> torch.device:
    """Returns where a model's parameters are; the CPU for a model without any."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode inside the block, and each module back after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
