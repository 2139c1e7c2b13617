"""Random parameters under which every channel of a network counts, however deep it is."""

from typing import Any

import torch
from torch import Tensor, nn

OFFSETS = 1.0
"""Spread between the means of a layer's channels, in units of the spread within a channel. With
much less, a deep network is chaotic: what dropping changes, and rounding, grows layer by layer."""


def randomize(model: nn.Module, example: tuple[Any, ...], random: torch.Generator) -> None:
    """Gives a model random parameters and BatchNorm statistics at unit gain, in place.

    One forward pass scales every layer's output to unit variance within its channels as it comes
    by, with channel means around zero, and puts every BatchNorm's statistics near those of its
    input. So what tells one image or position from another neither fades nor explodes, and each
    channel counts, however deep the network is.
    """
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=random)
            else:
                spread = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else OFFSETS
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
        model(*example)
    for hook in hooks:
        hook.remove()


def _spread(values: Tensor) -> float:
    """Returns the standard deviation within channels, averaged over them; `(..., channels)`."""
    return float(values.flatten(0, -2).std(dim=0).mean()) or 1.0
