"""Loss and accuracy of a network on a split, with standard errors, image by image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evosearch.errors import EvaluationError, InputError
from evosearch.evaluation.data import CalibrationSplit, SearchSplit, TrainSplit, require_split

BATCH_SIZE = 128
"""Images per forward pass: batches of 64 to 128 are up to 3 x faster per image than 512."""


@final
@dataclass(frozen=True, kw_only=True)
class Score:
    """What a network is worth on some images.

    Attributes:
        loss: mean cross-entropy, in nats.
        loss_se: its standard error over images.
        accuracy: share of images classified right, in [0, 1].
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
        losses: cross-entropy in nats, `(images,)`.
        correct: whether the largest logit is the label's, `(images,)`.
    """

    losses: NDArray[np.float64]
    correct: NDArray[np.bool_]

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
            accuracy=float(self.correct.mean()),
            accuracy_se=float(self.correct.std(ddof=1) / count**0.5),
            images=count,
        )


def score(
    model: nn.Module,
    split: SearchSplit | CalibrationSplit | TrainSplit,
    *,
    batch_size: int = BATCH_SIZE,
) -> Score:
    """Returns the loss and accuracy of a classifier on a split; never on the test split.

    Args:
        model: maps images to logits `(images, classes)`; left in the mode that it was in.
        split: scored whole and without augmentation.
        batch_size: images per forward pass.

    Raises:
        TypeError: `split` is a `TestSplit`.
        EvaluationError: a loss is not finite.
        InputError: the outputs are not logits for the labels.
    """
    require_split(split, SearchSplit, CalibrationSplit, TrainSplit)
    return image_scores(model, split.images, split.labels, batch_size=batch_size).score


def image_scores(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE
) -> ImageScores:
    """Returns the loss and correctness of every image.

    Args:
        model: maps images to logits `(images, classes)`; left in the mode that it was in.
        images: `(images, channels, height, width)`.
        labels: int64, `(images,)`.
        batch_size: images per forward pass.

    Raises:
        EvaluationError: a loss is not finite.
        InputError: the outputs are not logits for the labels.
    """
    place = device_of(model)
    losses, correct = [], []
    with evaluation_mode(model), torch.inference_mode():
        for batch, targets in zip(
            torch.split(images, batch_size), torch.split(labels, batch_size), strict=True
        ):
            logits = model(batch.to(place)).float().cpu()
            _require_logits(logits, targets)
            losses.append(functional.cross_entropy(logits, targets, reduction="none"))
            correct.append(logits.argmax(1) == targets)
    values = torch.cat(losses).double().numpy()
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise EvaluationError(f"the loss is not finite on {broken} of {len(values)} images")
    return ImageScores(losses=values, correct=torch.cat(correct).numpy())


def _require_logits(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or len(logits) != len(labels):
        raise InputError(
            f"expected logits ({len(labels)}, classes) from the model, got {tuple(logits.shape)}"
        )
    if int(labels.max()) >= logits.shape[1]:
        raise InputError(
            f"the data has label {int(labels.max())}, the model only {logits.shape[1]} classes"
        )


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
