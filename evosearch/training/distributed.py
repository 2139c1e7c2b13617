"""Data-parallel training: each process of torchrun takes its share of every batch.

Batches and their augmentation are drawn alike in all processes, and BatchNorm normalises by the
whole batch, so that a training is the same however many processes share it, but for rounding and
what dropout draws.
Gradients meet by torch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704).
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from evosearch.calling import Inputs, slices
from evosearch.data.labels import Labels
from evosearch.errors import InputError
from evosearch.machine import device_of
from evosearch.processes import shared_by
from evosearch.refit.norms import BatchNorm
from evosearch.space.mask import Mask


def process_count() -> int:
    """Returns how many processes share this one's trainings; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined_processes() -> Iterator[None]:
    """Joins the processes that torchrun started, inside the block; alone it does nothing.

    Each works on its own GPU where there are any.
    """
    if shared_by() == 1:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        # Trainings that are over hold the group in cycles. Where it outlives the interpreter, its
        # threads can abort a process that has done its work.
        gc.collect()
        dist.destroy_process_group()


def require_shares(images: int, steps: int, pieces: int, *, has_norms: bool) -> None:
    """Checks that no piece of a batch is empty, and every process gets two images of each or more.

    BatchNorm cannot take statistics of a single image: where there is one, pieces have two.

    Args:
        images: of an epoch.
        steps: that they are divided into.
        pieces: that a batch is divided into.
        has_norms: whether there is a BatchNorm in what learns.

    Raises:
        InputError: it does not.
    """
    least, count = images // steps // pieces, process_count()
    kind, remedy = ("batches", "") if pieces == 1 else ("pieces", "lower accumulate, ")
    if pieces > 1 and least < (2 if has_norms else 1):
        needed = "two or more for BatchNorm" if has_norms else "one or more"
        raise InputError(
            f"batches of {images // steps} images in {pieces} pieces: each needs {needed}, so"
            " lower accumulate or raise batch_size"
        )
    if count > 1 and least < 2 * count:
        raise InputError(
            f"{kind} of {least} images for {count} processes: each needs two or more, so"
            f" {remedy}raise batch_size or start fewer"
        )


def agreed(mask: Mask) -> Mask:
    """Returns the first process's mask: scores of channels can differ in their last digits."""
    if process_count() == 1:
        return mask
    told = [mask.to_json()]
    dist.broadcast_object_list(told, src=0)
    return Mask.from_json(told[0], {name: bits.size for name, bits in mask.items()})


def process_mean(value: Tensor) -> Tensor:
    """Returns the mean of what each process has, which is without gradient."""
    if process_count() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / process_count()


@final
class SharedGradient:
    """The gradient of an objective that is computed in shares."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Inputs, Labels], Tensor],
        terms: Callable[[], Sequence[Tensor]],
    ) -> None:
        """Takes what is shared.

        Args:
            model: what learns; it may be cut between batches.
            loss: images and labels of a share -> the mean over its images.
            terms: what else is added.
        """
        self._step = _Step(model, loss, terms)
        self._parallel: DistributedDataParallel | None = None
        self._known: list[nn.Parameter] = []

    def add(self, images: Inputs, labels: Labels, weight: float, *, is_last: bool) -> Tensor:
        """Adds the gradient of a piece of a batch to that in the model's parameters.

        Args:
            images: of the piece, for all processes.
            labels: likewise.
            weight: of the piece in its batch.
            is_last: whether none follows: gradients then become their mean over the processes.

        Returns:
            This process's share: the mean over the processes is what the piece adds.
        """
        count, parallel = process_count(), self._wrapped()
        share = slices(len(images), count)[dist.get_rank()]
        own = (share.stop - share.start) * count / len(images)
        with nullcontext() if is_last else parallel.no_sync():
            loss: Tensor = parallel(images[share], labels[share], own, weight)
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _wrapped(self) -> DistributedDataParallel:
        parameters = list(self._step.parameters())
        if self._parallel is None or [id(p) for p in parameters] != [id(p) for p in self._known]:
            place = device_of(self._step)
            self._parallel = DistributedDataParallel(
                self._step,
                device_ids=[place] if place.type == "cuda" else None,
                find_unused_parameters=True,  # auxiliary heads
            )
            self._known = parameters
        return self._parallel


@final
class _Step(nn.Module):
    """One process's share of the objective, as a module around what learns."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Inputs, Labels], Tensor],
        terms: Callable[[], Sequence[Tensor]],
    ) -> None:
        super().__init__()
        self.model = model
        self._loss, self._terms = loss, terms

    def forward(self, images: Inputs, labels: Labels, share: float, weight: float) -> Tensor:
        with synchronised_norms(self.model):
            loss = self._loss(images, labels) * share
        return sum(self._terms(), start=loss) * weight


@contextmanager
def synchronised_norms(model: nn.Module) -> Iterator[None]:
    """Has BatchNorm in training mode normalise by the whole batch of all processes.

    As torch's SyncBatchNorm, which is for GPUs alone and takes the place of modules that others
    hold.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.forward = partial(_normalised, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalised(norm: BatchNorm, features: Tensor) -> Tensor:
    """Returns what BatchNorm gives, by the statistics of all processes' features.

    Args:
        norm: the module.
        features: `(images, channels, ...)` of this process.
    """
    if not norm.training:
        return type(norm).forward(norm, features)
    axes = [axis for axis in range(features.ndim) if axis != 1]
    shape = [1, -1, *[1] * (features.ndim - 2)]
    wide = features.float()
    images = wide.new_tensor([wide.numel() / wide.shape[1]])
    sums = _total(torch.cat([wide.sum(axes), images]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = wide - mean.view(shape)
    variance = _total(centred.square().sum(axes)) / count
    if norm.track_running_stats:
        _remember(norm, mean.detach(), variance.detach() * count / (count - 1))
    found = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        found = found * norm.weight.view(shape) + norm.bias.view(shape)
    return found.to(features.dtype)


def _remember(norm: BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Moves running statistics towards those of a batch, as torch does."""
    tracked = norm.num_batches_tracked
    assert tracked is not None
    tracked.add_(1)
    for running, found in ((norm.running_mean, mean), (norm.running_var, variance)):
        assert running is not None
        if norm.momentum is None:
            running.lerp_(found.to(running.dtype), tracked.to(running.dtype).reciprocal())
        else:
            running.lerp_(found.to(running.dtype), norm.momentum)


def _total(share: Tensor) -> Tensor:
    """Returns the sum over the processes, with gradients to every share."""
    total: Tensor = _Total.apply(share)
    return total


class _Total(torch.autograd.Function):
    """The gradient of a sum over processes is the sum of what each makes of it."""

    @staticmethod
    def forward(_: Any, share: Tensor) -> Tensor:
        total = share.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
