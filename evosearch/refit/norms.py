"""Re-estimating BatchNorm statistics with weights fixed."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets every BatchNorm's statistics to the mean over batches of what it reads, in place.

    Each BatchNorm normalises by its batch while this runs, and everything else (dropout) stays
    in eval mode. Momenta and modes are as before afterwards.

    Args:
        model: changed only in its BatchNorm statistics.
        batches: calibration images, `(batch, channels, height, width)` each.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    momenta = [module.momentum for module in norms]
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a plain average over the batches
        module.train()
    try:
        with torch.inference_mode():
            for batch in batches:
                model(batch)
    finally:
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
        for part, mode in was_training.items():
            part.training = mode
