"""Random parameters under which every channel of a network counts, however deep it is."""

from typing import Any

import torch
from torch import Tensor, nn

from evosearch.calling import Example, call

OFFSETS = 1.0
"""Spread between the means of a layer's channels, in units of the spread within a channel. With
much less, a deep network is chaotic: what dropping changes, and rounding, grows layer by layer."""


def randomize(model: nn.Module, example: Example, random: torch.Generator) -> None:
    """Gives a model random parameters and BatchNorm statistics at unit gain, in place.

    One forward pass scales every layer's output to unit variance within its channels as it comes
    by, with channel means around zero, and puts every BatchNorm's statistics near those of its
    input. So what tells one image or position from another neither fades nor explodes, and each
    channel counts, however deep the network is.
    """
    with torch.no_grad():
        positive = _scales(model)
        for tensor in (*model.parameters(), *model.buffers()):
            if not tensor.is_floating_point():
                continue
            gain = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 1.0
            if id(tensor) in positive:
                tensor.uniform_(0.5 * gain, 1.5 * gain, generator=random)
            else:
                spread = gain if tensor.ndim > 1 else OFFSETS
                tensor.normal_(0, spread, generator=random)

    def unit_gain(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        dim = -1 if isinstance(module, nn.Linear) else 1
        by_channel = output.movedim(dim, -1)
        scale = _spread(by_channel)
        for parameter in module.parameters(recurse=False):
            parameter.div_(scale)
        by_channel = by_channel / scale
        if isinstance(module.bias, Tensor):
            offset = torch.empty_like(module.bias).normal_(0, OFFSETS, generator=random)
            shift = offset - by_channel.flatten(0, -2).mean(dim=0)
            module.bias.add_(shift)
            by_channel = by_channel + shift
        return by_channel.movedim(-1, dim)

    def near_input(module: nn.modules.batchnorm._NormBase, inputs: tuple[Tensor]) -> None:
        by_channel = inputs[0].movedim(1, -1).flatten(0, -2)
        scale = _spread(by_channel)
        if module.running_mean is not None and module.running_var is not None:
            module.running_mean.mul_(scale).add_(by_channel.mean(dim=0))
            module.running_var.mul_(scale**2)

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            hooks.append(module.register_forward_hook(unit_gain))
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            hooks.append(module.register_forward_pre_hook(near_input))
    with torch.no_grad():
        call(model, example)
    for hook in hooks:
        hook.remove()


def _scales(model: nn.Module) -> set[int]:
    """Returns which tensors stay positive, by their identity.

    The code of a model may take the root or the logarithm of a buffer (a variance, whatever its
    name): one that has no negative value keeps none, but for the means of torch's own norms,
    which start at zero. Parameters move freely in training; those that scale channels are
    positive so that none is near zero.
    """
    means = {
        id(module.running_mean)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
    }
    buffers = {
        id(buffer)
        for buffer in model.buffers()
        if buffer.is_floating_point() and not (buffer < 0).any()
    }
    weights = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if parameter.ndim == 1 and name.endswith("weight")
    }
    return (buffers - means) | weights


def _spread(values: Tensor) -> float:
    """Returns the standard deviation within channels, averaged over them; `(..., channels)`."""
    return float(values.flatten(0, -2).std(dim=0).mean()) or 1.0
