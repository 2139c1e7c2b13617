"""Auxiliary heads: modules that run in training and not in evaluation."""

import torch
from torch import nn

from evosearch.calling import call
from evosearch.data.splits import TrainSplit
from evosearch.machine import device_of, torch_seeded
from evosearch.models.copying import copied
from evosearch.tasks.task import Task


def holders_of_heads(model: nn.Module, train: TrainSplit, task: Task) -> tuple[str, ...]:
    """Returns the modules that run other modules in training only, such as GoogLeNet itself.

    A network that was cut was traced in evaluation: its auxiliary heads still expect the
    channels that are gone. In evaluation mode its holders leave them out, whatever the mode of
    the modules inside.

    Args:
        model: not changed; a copy of it is run in both modes.
        train: of which two images are looked at.
        task: how networks are called in training.
    """
    probe, place = copied(model), device_of(model)
    images, labels = train.images[:2].to(place), train.labels[:2].to(place)
    ran: set[str] = set()
    for name, module in probe.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
    holders: set[str] = set()
    with torch.no_grad(), torch_seeded(0, place):
        call(probe.eval(), images)
        always = frozenset(ran)
        while True:
            ran.clear()
            probe.train()
            for holder in holders:
                probe.get_submodule(holder).training = False
            try:
                task.batch_loss(probe, images, labels)
            except Exception:
                # A head may take no images as small as these: without it the rest is seen.
                if _holders(ran, always) <= holders:
                    raise
                holders |= _holders(ran, always)
            else:
                return tuple(sorted(holders | _holders(ran, always)))


def _holders(ran: set[str], always: frozenset[str]) -> set[str]:
    """Returns the innermost modules that always run, around those that ran beside them."""
    found = set()
    for head in ran - always:
        holder = head
        while holder not in always:
            holder = holder.rpartition(".")[0]
        found.add(holder)
    return found
