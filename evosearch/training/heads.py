"""Auxiliary heads: modules that run in training and not in evaluation."""

import torch
from torch import Tensor, nn

from evosearch.machine import device_of, torch_seeded
from evosearch.models.copying import copied


def holders_of_heads(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Returns the modules that run other modules in training only, such as GoogLeNet itself.

    A network that was cut was traced in evaluation: its auxiliary heads still expect the
    channels that are gone. In evaluation mode its holders leave them out, whatever the mode of
    the modules inside.

    Args:
        model: not changed; a copy of it is run in both modes.
        images: two or more, `(images, channels, height, width)`.
    """
    probe = copied(model)
    ran: dict[bool, set[str]] = {False: set(), True: set()}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda *_: ran[probe.training].add(name))

    for name, module in probe.named_modules():
        watch(name, module)
    with torch.no_grad(), torch_seeded(0, device_of(model)):
        for mode in (False, True):
            probe.train(mode)
            probe(images.to(device_of(model)))
    holders = set()
    for head in ran[True] - ran[False]:
        holder = head
        while holder not in ran[False]:
            holder = holder.rpartition(".")[0]
        holders.add(holder)
    return tuple(sorted(holders))
