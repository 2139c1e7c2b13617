"""The distillation loss: the teacher's softened logits, and the labels."""

from torch import Tensor
from torch.nn import functional

from evosearch.errors import InputError
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.task import Task


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    task: Task = CLASSIFICATION,
) -> Tensor:
    """Returns `(1 - alpha) loss + alpha T^2 KL(teacher_T || student_T)`, the mean over images.

    Hinton, Vinyals and Dean 2015, section 2: the square keeps the gradients of the soft part at
    the size of the hard part's at any temperature. Where outputs have positions, as a
    segmentation's, the divergence is the mean over them too.

    Args:
        student: logits, `(images, classes, ...)`.
        teacher: logits, `(images, classes, ...)`.
        labels: `(images, ...)`.
        temperature: T, which divides both logits.
        alpha: weight of the soft part.
        task: whose loss is the hard part.

    Raises:
        InputError: an output is no logits, but `alpha` is not 0.
    """
    hard = task.losses(student, labels).mean()
    if alpha == 0:
        return hard
    if student.ndim < 2:
        raise InputError(
            f"[finetune] alpha = {alpha:g} softens logits (images, classes, ...), but the output"
            f" is {tuple(student.shape)}; set it to 0"
        )
    rows = [logits.movedim(1, -1).flatten(0, -2) / temperature for logits in (student, teacher)]
    soft = functional.kl_div(
        functional.log_softmax(rows[0], dim=1),
        functional.log_softmax(rows[1], dim=1),
        log_target=True,
        reduction="batchmean",
    )
    return (1 - alpha) * hard + alpha * temperature**2 * soft
