"""A task: what networks are judged by, image by image, and what of their outputs is judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from evosearch.callables import one_line
from evosearch.data.labels import Labels
from evosearch.errors import InputError
from evosearch.study.scores import ACCURACY, Measure

MAIN_OUTPUTS = ("out", "logits")
"""What the main output is called where a model gives several."""

Judge = Callable[[Any, Any], Tensor]
Divergence = Callable[[Any, Any, float], Tensor]


def main_output(outputs: Any) -> Any:
    """Returns the main one of what a model gives.

    That is the tensor itself; of a mapping, named tuple or dataclass the entry "out" or "logits",
    as torchvision's segmentation networks and GoogLeNet in training have; else the first element.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        named = {str(name): value for name, value in outputs.items()}
    elif is_dataclass(outputs):
        named = {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    elif isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", map(str, range(len(outputs))))
        named = dict(zip(names, outputs, strict=True))
    else:
        return outputs
    chosen = next((name for name in MAIN_OUTPUTS if name in named), next(iter(named), None))
    return outputs if chosen is None else named[chosen]


def softened(student: Any, teacher: Any, temperature: float) -> Tensor:
    """Returns `T^2 KL(teacher_T || student_T)` of logits `(images, classes, ...)`.

    Hinton, Vinyals and Dean 2015, section 2: the square keeps its gradients at the size of the
    labels' at any temperature. Where outputs have positions, as a segmentation's, the divergence
    is the mean over them too.

    Raises:
        InputError: the outputs are no logits.
    """
    if not isinstance(student, Tensor) or student.ndim < 2:
        came = tuple(student.shape) if isinstance(student, Tensor) else type(student).__name__
        raise InputError(
            f"expected logits (images, classes, ...) to soften, but the output is {came}; set it"
            " to 0, or name [task] distil"
        )
    rows = [logits.movedim(1, -1).flatten(0, -2) / temperature for logits in (student, teacher)]
    return temperature**2 * functional.kl_div(
        functional.log_softmax(rows[0], dim=1),
        functional.log_softmax(rows[1], dim=1),
        log_target=True,
        reduction="batchmean",
    )


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What networks are judged by; see `TaskConfig` for the contract of each callable.

    Attributes:
        loss: `(output, target) -> (images,)`.
        metric: `(output, target) -> (images,)` in [0, 1], or statistics `(images, numbers)`.
        measure: what the metric is called, and how its statistics are pooled.
        output: what the model returns -> `(images, ...)`, or a nest of such tensors.
        collate: labels of images that are nests -> the target of a batch.
        distil: outputs of student and teacher, temperature -> their divergence; None where they
            cannot be compared.
    """

    loss: Judge
    metric: Judge
    measure: Measure = ACCURACY
    output: Callable[[Any], Any] = main_output
    collate: Callable[[list[Any]], Any] = default_collate
    distil: Divergence | None = softened

    def outputs(self, returned: Any) -> Any:
        """Returns the output that is judged, `(images, ...)`, in float32 at least.

        Raises:
            InputError: `output` fails, or gives no tensor.
        """
        chosen = _call("output", self.output, returned)
        leaves = [chosen] if self.output is main_output else pytree.tree_leaves(chosen)
        odd = [leaf for leaf in leaves if not isinstance(leaf, Tensor) or leaf.ndim == 0]
        if odd or not leaves:
            first = odd[0] if odd else chosen
            came = "a number" if isinstance(first, Tensor) else f"a {type(first).__name__}"
            raise InputError(
                f"[task] output: expected a tensor (images, ...), got {came}; the model returns a"
                f" {type(returned).__name__}"
            )
        return pytree.tree_map(_widened, chosen)

    def targets(self, labels: Labels) -> Any:
        """Returns what outputs are compared with: labels of tensors as these, nests collated.

        Raises:
            InputError: the nests do not collate.
        """
        if isinstance(labels, Tensor):
            return labels
        return _call("collate", self.collate, list(labels.each))

    def losses(self, output: Any, labels: Labels) -> Tensor:
        """Returns the loss of each image, `(images,)`, with gradients.

        Raises:
            InputError: `loss` fails, or does not give one number per image.
        """
        values = _call("loss", self.loss, output, self.targets(labels))
        return _numbers("loss", values, len(labels))

    def metrics(self, output: Any, labels: Labels) -> Tensor:
        """Returns the metric of each image, float64 `(images,)` in [0, 1], or its statistics.

        Raises:
            InputError: `metric` fails, or gives something else.
        """
        values = _call("metric", self.metric, output, self.targets(labels))
        if self.measure.pooled is not None:
            return _statistics(values, len(labels))
        values = _numbers("metric", values, len(labels)).double()
        if not bool(((values >= 0) & (values <= 1)).all()):
            low, high = float(values.min()), float(values.max())
            raise InputError(f"[task] metric: expected values in [0, 1], got {low:g} to {high:g}")
        return values

    def divergence(self, student: Any, teacher: Any, temperature: float) -> Tensor:
        """Returns how far a student's outputs are from its teacher's, one number.

        Raises:
            InputError: they cannot be compared.
        """
        if self.distil is None:
            raise InputError(
                "this task has nothing that compares the outputs of two networks; set it to 0, or"
                " name [task] distil"
            )
        value = _call("distil", self.distil, student, teacher, temperature)
        if not isinstance(value, Tensor) or value.ndim:
            came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"[task] distil: expected one number of a batch, got {came}")
        return value


def _widened(leaf: Any) -> Any:
    return leaf.float() if leaf.dtype in (torch.bfloat16, torch.float16) else leaf


def _call(key: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"[task] {key}: {one_line(error)}") from error


def _numbers(key: str, values: Any, images: int) -> Tensor:
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape != (images,):
        raise InputError(
            f"[task] {key}: expected one number per image, ({images},), got {shape}; a"
            ' function of torch gives that with reduction="none"'
        )
    numbers: Tensor = values
    return numbers


def _statistics(values: Any, images: int) -> Tensor:
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if not isinstance(values, Tensor) or values.ndim != 2 or len(values) != images:
        raise InputError(
            f"[task] metric: expected a row of statistics per image, ({images}, numbers), as they"
            f" are pooled, got {shape}"
        )
    return values.detach().double()
