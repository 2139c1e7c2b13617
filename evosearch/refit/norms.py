"""Re-estimation of BatchNorm statistics, with weights fixed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evosearch.models.modes import evaluating

BatchNorm = nn.modules.batchnorm._BatchNorm


def with_statistics(model: nn.Module) -> list[BatchNorm]:
    """Returns the BatchNorms of a model that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, BatchNorm) and module.track_running_stats
    ]


@contextmanager
def estimating(model: nn.Module) -> Iterator[None]:
    """Makes forward passes inside the block estimate every BatchNorm's statistics anew, in place.

    Each BatchNorm normalises by its batch, and is left with the plain average over the batches;
    everything else (dropout) is in eval mode. Momenta and modes are as before after the block.

    Args:
        model: changed only in its BatchNorm statistics.
    """
    norms = with_statistics(model)
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # what torch calls a plain average
            norm.train()
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets every BatchNorm's statistics to the mean over batches of what it reads, in place.

    Args:
        model: changed only in its BatchNorm statistics; without any, no batch is drawn.
        batches: calibration images, `(batch, channels, height, width)` each.
    """
    if not with_statistics(model):
        return
    with estimating(model), torch.inference_mode():
        for batch in batches:
            model(batch)
