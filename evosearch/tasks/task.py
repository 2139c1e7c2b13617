"""A task: what networks are judged by, image by image, and what of their outputs is judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from evosearch.callables import one_line
from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.errors import InputError
from evosearch.machine import device_of
from evosearch.study.scores import ACCURACY, Measure
from evosearch.tasks.ownlosses import Network, TrainingLoss, called_alone

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
        loss: `(output, target) -> (images,)`; None where the network computes its own.
        metric: `(output, target) -> (images,)` in [0, 1], or statistics `(images, numbers)`.
        measure: what the metric is called, and how its statistics are pooled.
        output: what the model returns -> `(images, ...)`, or a nest of such tensors.
        collate: labels of images that are nests -> the target of a batch.
        distil: outputs of student and teacher, temperature -> their divergence; None where they
            cannot be compared.
        training_loss: network, images, target -> the loss of a batch or of each image, for
            networks that compute their own.
    """

    loss: Judge | None
    metric: Judge
    measure: Measure = ACCURACY
    output: Callable[[Any], Any] = main_output
    collate: Callable[[list[Any]], Any] = default_collate
    distil: Divergence | None = softened
    training_loss: TrainingLoss | None = None

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
            InputError: `loss` fails, or does not give one number per image; or there is none.
        """
        if self.loss is None:
            raise InputError(
                "this task's networks compute their own loss, and it cannot be had of their"
                " outputs; do without what asks for that, or give [task] loss"
            )
        values = _call("loss", self.loss, output, self.targets(labels))
        return _numbers("loss", values, len(labels))

    def batch_loss(self, network: Network, images: Inputs, labels: Labels) -> Tensor:
        """Calls a network and returns the mean loss of a batch, with gradients.

        Args:
            network: in the mode that it trains in.
            images: on its device.
            labels: likewise.

        Raises:
            InputError: `loss`, `output` or `training_loss` fails, or gives something else.
        """
        if self.training_loss is None:
            return self.losses(self.outputs(call(network, images)), labels).mean()
        value = _call("training_loss", self.training_loss, network, images, self.targets(labels))
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape not in ((), (len(images),)):
            raise InputError(
                "[task] training_loss: expected one number, or one per image,"
                f" ({len(images)},), got {shape}"
            )
        mean: Tensor = value.mean()
        return mean

    def own_losses(self, network: nn.Module, images: Inputs, labels: Labels) -> Tensor | None:
        """Returns the loss of each image in evaluation that a network computes, on the CPU.

        It is called for each image, with it alone; see `called_alone`.

        Args:
            network: in evaluation mode.
            images: on its device.
            labels: on the CPU.

        Returns:
            `(images,)`; None where the loss is one of outputs.

        Raises:
            InputError: see `batch_loss`.
        """
        if self.training_loss is None:
            return None
        losses, place = [], device_of(network)
        for position in range(len(images)):
            one = slice(position, position + 1)
            with called_alone(network):
                losses.append(self.batch_loss(network, images[one], labels[one].to(place)).cpu())
        return torch.stack(losses)

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
        if self.training_loss is not None:
            raise InputError(
                "networks that compute their own loss give no outputs to compare while they train;"
                " set it to 0: they learn from labels, and where asked from [finetune] attention"
            )
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
