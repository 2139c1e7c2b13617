"""The check that a network, its data and its task fit each other, before anything is trained."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from evosearch.callables import one_line
from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.data.splits import SearchData, Split
from evosearch.errors import InputError
from evosearch.models.modes import evaluating
from evosearch.tasks.task import Task


def require_fit(model: nn.Module, data: SearchData, task: Task) -> None:
    """Checks on two images of each split that the network takes them and the task judges them.

    Where labels are numbers, these are the images with the least and the greatest, so that a
    class which the network has not is found.

    Args:
        model: on the CPU; left in the mode that it was in.
        data: the splits that a search may see.
        task: what networks are judged by.

    Raises:
        InputError: they do not fit; names the split.
    """
    splits = {
        "train": data.train,
        "calibration": data.calibration,
        "search": data.search,
        "confirmation": data.confirmation,
    }
    with evaluating(model), torch.inference_mode():
        for name, split in splits.items():
            if len(split):
                _require_fit(model, split, task, f"[data] {name}")


def _require_fit(model: nn.Module, split: Split, task: Task, where: str) -> None:
    positions = _ends(split.labels)
    images, labels = split.images[positions], split.labels[positions]
    try:
        returned = call(model, images)
    except Exception as error:
        raise InputError(
            f"{where}: the network of [model] fails on {_shapes(images)}: {one_line(error)};"
            " expected what it was made for"
        ) from error
    try:
        task.targets(split.labels)  # all of them: what does not collate may be in any
        output = task.outputs(returned)
        if task.own_losses(model, images, labels) is None:
            task.losses(output, labels)
        metrics = task.metrics(output, labels).numpy()
        if task.measure.pooled is not None:
            task.measure.value(metrics)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _shapes(images: Inputs) -> str:
    if isinstance(images, Tensor):
        return f"images of shape {tuple(images.shape[1:])}"
    named = images.parts.items() if isinstance(images.parts, Mapping) else enumerate(images.parts)
    return f"inputs {', '.join(f'{name} {tuple(own.shape[1:])}' for name, own in named)}"


def _ends(labels: Labels) -> Tensor:
    """Returns the positions of two labels that are as far apart as any."""
    if not isinstance(labels, Tensor) or labels.ndim > 1:
        return torch.tensor([0, len(labels) - 1])
    return torch.stack([labels.argmin(), labels.argmax()])
