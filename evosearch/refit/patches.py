"""Patches: what the weight of a layer multiplies (im2col), and the calls that read them."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from evosearch.surgery.cut_attention import projections_called
from evosearch.surgery.tracing.layer import Geometry, Layer

_OPERATORS = {F.linear, F.conv2d}
_ARGUMENTS = ("input", "weight", "bias")


def has_patches(layer: Layer) -> bool:
    """Returns whether a layer's patches are known: linear, or ungrouped in two dimensions."""
    return layer.operator == "linear" or (layer.operator == "conv2d" and layer.groups == 1)


@final
class Calls(TorchFunctionMode):
    """Shows the calls of layers in the forward passes inside its block.

    What is shown is what the operator itself gets: images that the code pads first come padded.
    Attention modules call their projections one by one, images first, whatever they do elsewhere.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[Layer],
        *,
        before: Callable[[Layer, Tensor], None] = lambda *_: None,
        after: Callable[[Layer, Tensor], None] = lambda *_: None,
    ) -> None:
        """Takes whose calls are shown to whom.

        Args:
            model: the traced network, or one compacted from it.
            layers: those of its layers that are shown; they have patches.
            before: told of a layer's input, before the weight is read.
            after: told of a layer's output.
        """
        super().__init__()
        self._layers = {id(model.get_parameter(layer.weight)): layer for layer in layers}
        self._before, self._after = before, after
        self._projections = projections_called(model)

    def __enter__(self) -> "Calls":
        self._projections.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._projections.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _OPERATORS:
            return func(*args, **kwargs)
        named = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        layer = self._layers.get(id(named["weight"]))
        if layer is None:
            return func(*args, **kwargs)
        self._before(layer, named["input"])
        output = func(*args, **kwargs)
        self._after(layer, output)
        return output


def rows_of(layer: Layer, output: Tensor) -> Tensor:
    """Returns a layer's output by position, `(images, positions, channels)`."""
    if layer.geometry is None:  # channels come last, whatever the number of dimensions
        return output[:, None] if output.ndim == 2 else output.flatten(1, -2)
    return output.flatten(2).transpose(1, 2)


def input_patches(layer: Layer, inputs: Tensor) -> Tensor:
    """Returns what a layer's weight multiplies, `(images x positions, inputs)`.

    Args:
        layer: one that has patches.
        inputs: of its operator.
    """
    if layer.geometry is None:
        return inputs.flatten(0, -2)
    where = layer.geometry
    columns = F.unfold(
        _padded(where, inputs), where.kernel, dilation=where.dilation, stride=where.stride
    )
    return columns.transpose(1, 2).flatten(0, 1)


def drawn_patches(layer: Layer, inputs: Tensor, drawn: Tensor) -> Tensor:
    """Returns what a layer's weight multiplies for some output positions, `(rows, inputs)`.

    Inputs are in the order of `channels_last`: where channels run last in memory, those of a
    position are copied together.

    Args:
        layer: one that has patches.
        inputs: of its operator.
        drawn: indices of output positions in each image, `(images, positions)`.
    """
    if layer.geometry is None:
        rows = rows_of(layer, inputs)
        return rows.gather(1, drawn[:, :, None].expand(-1, -1, rows.shape[2])).flatten(0, 1)
    where, place = layer.geometry, inputs.device
    maps = _padded(where, inputs).movedim(1, -1)
    (kernel_h, kernel_w), (stride_h, stride_w) = where.kernel, where.stride
    dilation_h, dilation_w = where.dilation
    width = (maps.shape[2] - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    top, left = drawn // width * stride_h, drawn % width * stride_w
    rows = top[:, :, None, None] + (torch.arange(kernel_h, device=place) * dilation_h)[:, None]
    columns = left[:, :, None, None] + torch.arange(kernel_w, device=place) * dilation_w
    image = torch.arange(len(inputs), device=place)[:, None, None, None]
    # (images, positions, kernel, kernel, channels)
    return maps[image, rows, columns].flatten(0, 1).flatten(1)


def channels_last(weight: Tensor) -> Tensor:
    """Returns a weight as a matrix `(outputs, inputs)`, an input's channel varying fastest.

    Args:
        weight: `(outputs, channels, ...)`; by itself its kernel's elements vary fastest.
    """
    return weight.movedim(1, -1).flatten(1)


def channels_first(rows: Tensor, channels: int) -> Tensor:
    """Returns rows in the order of `channels_last` with a kernel's elements varying fastest."""
    return rows.reshape(len(rows), -1, channels).transpose(1, 2).flatten(1)


def _padded(where: Geometry, inputs: Tensor) -> Tensor:
    return F.pad(inputs, [count for sides in reversed(where.padding) for count in sides])
