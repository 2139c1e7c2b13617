"""The distillation loss: the divergence from the teacher's outputs, and the labels."""

from typing import Any

import torch
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.data.splits import TrainSplit
from evosearch.errors import InputError
from evosearch.machine import device_of
from evosearch.models.modes import evaluating
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.ownlosses import Network
from evosearch.tasks.task import Task


def distillation_loss(
    student: Any,
    teacher: Any,
    labels: Labels,
    *,
    temperature: float,
    alpha: float,
    task: Task = CLASSIFICATION,
    section: str = "finetune",
) -> Tensor:
    """Returns `(1 - alpha) loss + alpha divergence`, the mean over images.

    With logits the divergence is that of softened ones, times the square of their temperature
    (Hinton, Vinyals and Dean 2015, section 2); see `Task.distil`.

    Args:
        student: its output.
        teacher: its output.
        labels: of the images.
        temperature: T, which divides both logits.
        alpha: weight of the divergence.
        task: whose loss is the hard part, and which compares outputs.
        section: of the space file that says `alpha`, for messages.

    Raises:
        InputError: the task cannot compare such outputs, but `alpha` is not 0.
    """
    if alpha == 0:
        return task.losses(student, labels).mean()
    try:
        soft = task.divergence(student, teacher, temperature)
    except InputError as error:
        raise InputError(f"[{section}] alpha = {alpha:g}: {error}") from error
    return (1 - alpha) * task.losses(student, labels).mean() + alpha * soft


def students_loss(
    student: Network,
    images: Inputs,
    labels: Labels,
    teacher: Any,
    *,
    temperature: float,
    alpha: float,
    task: Task,
    section: str = "finetune",
) -> Tensor:
    """Calls a student and returns its `distillation_loss`.

    Args:
        student: in the mode that it trains in.
        images: on its device.
        labels: likewise.
        teacher: output of its teacher; not looked at where `alpha` is 0.
        temperature: see `distillation_loss`.
        alpha: likewise.
        task: likewise.
        section: likewise.

    Raises:
        InputError: see `distillation_loss`.
    """
    if alpha == 0:
        return task.batch_loss(student, images, labels)
    return distillation_loss(
        task.outputs(call(student, images)),
        teacher,
        labels,
        temperature=temperature,
        alpha=alpha,
        task=task,
        section=section,
    )


def require_comparable(
    model: nn.Module,
    train: TrainSplit,
    *,
    temperature: float,
    alpha: float,
    task: Task,
    section: str = "finetune",
) -> None:
    """Checks on two images that a task can compare the outputs of a network and its student.

    Args:
        model: of either; left in the mode that it was in.
        train: the images.
        temperature: see `distillation_loss`.
        alpha: likewise; where it is 0, nothing is compared.
        task: likewise.
        section: likewise.

    Raises:
        InputError: it cannot.
    """
    if alpha == 0:
        return
    place = device_of(model)
    with evaluating(model), torch.no_grad():
        output = task.outputs(call(model, train.images[:2].to(place)))
        distillation_loss(
            output,
            output,
            train.labels[:2].to(place),
            temperature=temperature,
            alpha=alpha,
            task=task,
            section=section,
        )
