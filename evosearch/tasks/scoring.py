"""The scoring of a network on a split: loss and metric of every image, in numerics that work."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.data.splits import (
    CalibrationSplit,
    SearchSplit,
    Split,
    TrainSplit,
    require_split,
)
from evosearch.errors import EvaluationError
from evosearch.machine import device_of
from evosearch.memory import largest_fitting
from evosearch.models.copying import copied
from evosearch.models.modes import evaluating
from evosearch.models.precision import PLAIN, Numerics, first_working
from evosearch.study.scores import ImageScores, Reals, Score, joined
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.task import Task

SCORING = "scoring"
"""The purpose that the batches of `image_scores` are remembered for."""
WAITING = 2**24
"""Elements of outputs that wait on the device to be judged, about: 64 MiB."""
TRIED = 8
"""Images that numerics are tried on."""


def batch_size_on(device: torch.device) -> int:
    """Returns how many images to score in one forward pass.

    A CPU is fastest while feature maps stay in its caches; a GPU wants more at once.
    """
    return 64 if device.type == "cpu" else 1024


def score(
    model: nn.Module,
    split: SearchSplit | CalibrationSplit | TrainSplit,
    *,
    task: Task = CLASSIFICATION,
) -> Score:
    """Returns the loss and metric of a network on a split; never on the test split.

    Args:
        model: left in the mode that it was in.
        split: scored whole and without augmentation.
        task: what the outputs are judged by.

    Raises:
        TypeError: `split` is a `TestSplit`.
        EvaluationError: a loss is not finite.
        InputError: the outputs do not fit the task.
    """
    require_split(split, SearchSplit, CalibrationSplit, TrainSplit)
    return image_scores(model, split, task=task).score


def image_scores(
    model: nn.Module,
    split: Split,
    *,
    task: Task = CLASSIFICATION,
    batch_size: int | None = None,
    numerics: Numerics = PLAIN,
) -> ImageScores:
    """Returns the loss and metric of every image of any split, the test split included.

    Args:
        model: left in the mode that it was in.
        split: scored whole and without augmentation.
        task: what the outputs are judged by, on the CPU and as float32.
        batch_size: images per forward pass, at most; by default what suits the device.
        numerics: what the network computes in; its weights are taken as they lie.

    Raises:
        EvaluationError: a loss is not finite.
        InputError: the outputs do not fit the task.
        MemoryExhausted: a single image does not fit.
    """
    place = device_of(model)
    return largest_fitting(
        SCORING,
        place,
        batch_size or batch_size_on(place),
        lambda size: scores_of(model, split.batches(size), task=task, numerics=numerics),
    )


def scores_of(
    model: nn.Module,
    batches: Iterable[tuple[Inputs, Labels]],
    *,
    task: Task,
    numerics: Numerics,
) -> ImageScores:
    """Returns the loss and metric of every image of some batches; see `image_scores`.

    Outputs stay on the device until `WAITING` elements have come together: it does not wait for
    every batch to be judged.
    """
    place = device_of(model)
    losses: list[Tensor] = []
    metrics: list[Reals] = []
    waiting: list[tuple[Any, Tensor | None, Labels]] = []

    def judge() -> None:
        for returned, own, labels in waiting:
            output = pytree.tree_map(lambda leaf: leaf.cpu(), returned)
            losses.append(task.losses(output, labels) if own is None else own)
            metrics.append(task.metrics(output, labels).numpy())
        waiting.clear()

    with evaluating(model), torch.inference_mode(), numerics.computing(place):
        elements = 0
        for images, labels in batches:
            laid = numerics.images(images.to(place))
            output = task.outputs(call(model, laid))
            waiting.append((output, task.own_losses(model, laid, labels), labels))
            elements += sum(leaf.numel() for leaf in pytree.tree_leaves(output))
            if elements > WAITING:
                judge()
                elements = 0
        judge()
    values = torch.cat(losses).double().numpy()
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise EvaluationError(f"the loss is not finite on {broken} of {len(values)} images")
    return ImageScores(losses=values, metrics=joined(metrics), measure=task.measure)


def working_numerics(
    model: nn.Module,
    split: SearchSplit | TrainSplit,
    wanted: Numerics,
    *,
    task: Task = CLASSIFICATION,
) -> tuple[Numerics, str | None]:
    """Returns what a network can compute in, found by scoring it on a few images.

    What holds for the base network holds for all that are cut from it, whose code is the same.

    Args:
        model: the base network; not changed.
        split: the first of its images are scored.
        wanted: what it should compute in.
        task: what its outputs are judged by, which meets their layout too.

    Returns:
        See `first_working`, also for what it raises.
    """
    few = split.take(torch.arange(min(TRIED, len(split))))

    def attempt(numerics: Numerics) -> None:
        image_scores(numerics.network(copied(model)), few, task=task, numerics=numerics)

    return first_working(wanted, attempt)
