"""A task: its loss and its metric, image by image, and the output that they judge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, final

from torch import Tensor

from evosearch.callables import one_line
from evosearch.errors import InputError

MAIN_OUTPUTS = ("out", "logits")
"""What the main output is called where a model gives several."""

Judge = Callable[[Tensor, Tensor], Tensor]


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

    loss: Judge
    metric: Judge
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
