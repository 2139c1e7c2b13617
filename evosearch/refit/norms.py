"""Re-estimation of BatchNorm statistics, with weights fixed."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.models.modes import evaluating

BatchNorm = nn.modules.batchnorm._BatchNorm


def with_statistics(model: nn.Module) -> dict[str, BatchNorm]:
    """Returns the BatchNorms of a model that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BatchNorm) and module.track_running_stats
    }


@contextmanager
def estimating(model: nn.Module, *, but: Collection[str] = ()) -> Iterator[None]:
    """Makes forward passes inside the block estimate every BatchNorm's statistics anew, in place.

    Each BatchNorm normalises by its batch. Its mean and variance become the means over all its
    calls, each counted by how many elements of a channel it reads, of the calls' own: what the
    running averages of training estimate. Everything else (dropout) is in eval mode. Momenta and
    modes are as before after the block.

    Args:
        model: changed only in its BatchNorm statistics.
        but: names of BatchNorms that normalise by the statistics they have, and keep them.
    """
    norms = [norm for name, norm in with_statistics(model).items() if name not in but]
    read = dict.fromkeys(norms, 0)

    def weigh(norm: BatchNorm, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        (values,) = (*args, *kwargs.values())
        count = values.numel() // values.shape[1]
        if not read[norm] and norm.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.zero_()
        read[norm] += count
        norm.momentum = count / read[norm]  # the first call's share is all

    momenta = [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(weigh, with_kwargs=True) for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.train()
        try:
            yield
        finally:
            for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
                norm.momentum = momentum
                hook.remove()


def recalibrate(model: nn.Module, batches: Iterable[Inputs]) -> None:
    """Estimates every BatchNorm's statistics anew on batches, in place.

    Args:
        model: changed only in its BatchNorm statistics; without any, no batch is drawn.
        batches: of calibration images.
    """
    if not with_statistics(model):
        return
    with estimating(model), torch.inference_mode():
        for batch in batches:
            call(model, batch)


@contextmanager
def counting_calls(model: nn.Module) -> Iterator[Counter[str]]:
    """Counts inside the block how often forward passes call each BatchNorm with statistics."""
    calls: Counter[str] = Counter()
    hooks = [
        norm.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
        for name, norm in with_statistics(model).items()
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
