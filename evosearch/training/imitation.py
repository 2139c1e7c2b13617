"""The objective of imitating a teacher: its softened outputs, its attention, and the labels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.models.modes import evaluating
from evosearch.tasks.task import Task
from evosearch.training.attention import attention_loss, attention_map, module_outputs
from evosearch.training.gradient import BatchLoss
from evosearch.training.objective import students_loss


@contextmanager
def imitating(
    teacher: nn.Module,
    student: nn.Module,
    layers: Sequence[str],
    *,
    temperature: float,
    alpha: float,
    attention: float,
    task: Task,
) -> Iterator[BatchLoss]:
    """Gives the objective of a student, inside the block.

    Args:
        teacher: not changed.
        student: whose forward passes are watched at `layers`.
        layers: modules whose attention maps are matched.
        temperature: softens both networks' logits.
        alpha: weight of the softened logits against the labels.
        attention: weight of attention transfer.
        task: whose loss is the hard part, and which output of both networks is compared.
    """
    with (
        evaluating(teacher),
        module_outputs(teacher, layers) as teacher_features,
        module_outputs(student, layers) as student_features,
    ):

        def loss(images: Inputs, labels: Labels) -> Tensor:
            target = None
            if alpha or layers:
                with torch.no_grad():
                    target = task.outputs(call(teacher, images))
            total = students_loss(
                student,
                images,
                labels,
                target,
                temperature=temperature,
                alpha=alpha,
                task=task,
            )
            if layers:
                total = total + attention * attention_loss(
                    [attention_map(student_features[name]) for name in layers],
                    [attention_map(teacher_features[name]) for name in layers],
                )
            return total

        yield loss
