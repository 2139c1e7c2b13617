"""What a network is for: its loss, its metric, and which of its outputs they judge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional

from evosearch.errors import InputError
from evosearch.models.build import one_line, resolve_callable

MAIN_OUTPUTS = ("out", "logits")
"""What the main output is called where a model gives several."""

Judge = Callable[[Tensor, Tensor], Tensor]


class TaskConfig(BaseModel):
    """The `[task]` section: each a "module:callable" or "file.py:callable", or none.

    Attributes:
        loss: `loss(output, target) -> (images,)`: what training lowers and the search compares,
            image by image, with gradients. Without it: cross-entropy, in nats.
        metric: `metric(output, target) -> (images,)`, each in [0, 1], higher is better: what
            is shown as accuracy. Without it: whether the largest logit is the label's.
        output: `output(what the model returns) -> tensor (images, ...)`, in training and in
            evaluation, of the base network and of every network cut from it. Distillation
            softens it over its second dimension; for an output that is no logits, set
            `[finetune] alpha = 0`. Without it: the tensor itself, its entry "out" or "logits",
            or else its first element.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: str | None = None
    metric: str | None = None
    output: str | None = None


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy of each image in nats, `(images,)`.

    Args:
        output: logits, `(images, classes)`.
        target: int64, `(images,)`.

    Raises:
        InputError: these are no logits for the labels.
    """
    _require_logits(output, target)
    return functional.cross_entropy(output, target, reduction="none")


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Returns 1 where the largest logit is the label's and 0 elsewhere, `(images,)`.

    Raises:
        InputError: these are no logits for the labels.
    """
    _require_logits(output, target)
    return (output.argmax(1) == target).double()


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


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What networks are judged by; see `TaskConfig` for the contract of each callable.

    Attributes:
        loss: `(output, target) -> (images,)`.
        metric: `(output, target) -> (images,)` in [0, 1].
        output: what the model returns -> `(images, ...)`.
    """

    loss: Judge = cross_entropy
    metric: Judge = accuracy
    output: Callable[[Any], Any] = main_output

    def outputs(self, returned: Any) -> Tensor:
        """Returns the output that is judged, `(images, ...)`.

        Raises:
            InputError: `output` fails, or gives no tensor.
        """
        chosen = _call("output", self.output, returned)
        if not isinstance(chosen, Tensor) or chosen.ndim == 0:
            came = "a number" if isinstance(chosen, Tensor) else f"a {type(chosen).__name__}"
            raise InputError(
                f"[task] output: expected a tensor (images, ...), got {came}; the model returns a"
                f" {type(returned).__name__}"
            )
        return chosen

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of each image, `(images,)`, with gradients.

        Raises:
            InputError: `loss` fails, or does not give one number per image.
        """
        return _per_image("loss", self.loss, output, target)

    def metrics(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the metric of each image, float64 `(images,)` in [0, 1].

        Raises:
            InputError: `metric` fails, or does not give one number in [0, 1] per image.
        """
        values = _per_image("metric", self.metric, output, target).double()
        if not bool(((values >= 0) & (values <= 1)).all()):
            low, high = float(values.min()), float(values.max())
            raise InputError(f"[task] metric: expected values in [0, 1], got {low:g} to {high:g}")
        return values


CLASSIFICATION = Task()
"""Cross-entropy and accuracy of logits."""


def load_task(config: TaskConfig, folder: Path) -> Task:
    """Returns the task of a `[task]` section.

    Args:
        config: the section.
        folder: where the space file lies, and a `file.py` beside it.

    Raises:
        InputError: there is no such callable.
    """
    named = {key: value for key, value in config.model_dump().items() if value is not None}
    return Task(**{k: resolve_callable(v, folder, f"[task] {k}") for k, v in named.items()})


def _call(key: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"[task] {key}: {one_line(error)}") from error


def _per_image(key: str, function: Judge, output: Tensor, target: Tensor) -> Tensor:
    values = _call(key, function, output, target)
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape != (len(target),):
        raise InputError(
            f"[task] {key}: expected one number per image, ({len(target)},), got {shape}; a"
            ' function of torch gives that with reduction="none"'
        )
    numbers: Tensor = values
    return numbers


def _require_logits(output: Tensor, target: Tensor) -> None:
    if target.ndim != 1 or target.dtype != torch.int64:
        raise InputError(
            f"labels of shape {tuple(target.shape)} and type {target.dtype} are no classes; give"
            " [task] loss and metric"
        )
    if output.ndim != 2 or len(output) != len(target):
        raise InputError(
            f"expected logits ({len(target)}, classes) from the model, got {tuple(output.shape)};"
            " for another task give [task] loss, metric or output"
        )
    if int(target.max()) >= output.shape[1]:
        raise InputError(
            f"the data has label {int(target.max())}, the model only {output.shape[1]} classes"
        )
