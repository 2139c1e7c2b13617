"""A split that stays on a device: normalised there once, in the layout that it is scored in."""

import math
from collections.abc import Iterator
from typing import Literal, final

import torch
from torch import Tensor, nn

from evosearch.calling import Inputs
from evosearch.data.images import Images
from evosearch.data.labels import Labels
from evosearch.data.splits import Split
from evosearch.machine import device_of
from evosearch.memory import largest_fitting
from evosearch.models.precision import Numerics
from evosearch.study.scores import ImageScores
from evosearch.tasks.scoring import SCORING, scores_of
from evosearch.tasks.task import Task

CPU_BYTES = 2**29
"""What a split may take of a CPU's memory, where its images lie already, as bytes or in files."""
SHARE = 0.25
"""Of the free memory of any other device that a split may take."""


def room_on(device: torch.device) -> int:
    """Returns how many bytes of a device's memory a split may take."""
    if device.type != "cuda":
        return CPU_BYTES
    return int(SHARE * torch.cuda.mem_get_info(device)[0])


@final
class ResidentSplit:
    """Images of a split on a device, batch by batch from the first time that each is read.

    They stay normalised where they fit (`room_on`). Else a device that is no CPU keeps them as
    their source gives them, a quarter of that for bytes; else they are read every time. Whatever
    is kept, a batch is normalised on the device, by the same arithmetic, so that its values do
    not depend on it; images of several tensors come normalised. They are float32: convolutions
    round them to what they compute in.
    """

    def __init__(self, split: Split, device: torch.device, numerics: Numerics) -> None:
        """Takes images, where they are to be, and the layout that they are read in."""
        self._split, self._device, self._numerics = split, device, numerics
        self._kept: dict[tuple[int, int], Inputs] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._split)

    def batches(
        self, size: int, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[Inputs, Labels]]:
        """Yields images on the device and labels in order, `size` at a time and the rest at last.

        Args:
            size: images at a time; those of another size are no longer kept.
            start: the first image.
            stop: behind the last; None is the split's end.
        """
        if size != self._size:
            self._kept.clear()
            self._keeps, self._size = self._what_fits(), size
        end = len(self) if stop is None else min(stop, len(self))
        for first in range(start, end, size):
            last = min(first + size, end)
            yield self._images(first, last), self._split.labels[first:last]

    def _what_fits(self) -> Literal["normalised", "raw", "nothing"]:
        images, room = self._split.images, room_on(self._device)
        each = (images,) if isinstance(images, Images) else images.each
        count = len(self) * sum(math.prod(own.shape) for own in each)
        if count * torch.float32.itemsize <= room:
            return "normalised"
        if self._device.type == "cpu" or not isinstance(images, Images):
            return "nothing"
        return "raw" if count * images.raw(slice(1)).element_size() <= room else "nothing"

    def _images(self, first: int, last: int) -> Inputs:
        found = self._kept.get((first, last))
        if found is None:
            images, part = self._split.images, slice(first, last)
            read = images.raw(part) if isinstance(images, Images) else images[part]
            found = read.to(self._device)
            if self._keeps == "normalised":
                found = self._laid(found)
            if self._keeps != "nothing":
                self._kept[first, last] = found
        return found if self._keeps == "normalised" else self._laid(found)

    def _laid(self, read: Inputs) -> Inputs:
        images = self._split.images
        if isinstance(images, Images) and isinstance(read, Tensor):
            read = images.normalised(read)
        return self._numerics.images(read)


def range_scores(
    model: nn.Module,
    split: ResidentSplit,
    images: range,
    *,
    batch_size: int,
    task: Task,
    numerics: Numerics,
) -> ImageScores:
    """Returns the loss and metric of some images; see `scoring.image_scores`.

    Whole batches are scored, from the first image of the split on, so that no image's sums depend
    on the range.
    """

    def scored(size: int) -> ImageScores:
        first, last = images.start // size * size, -(-images.stop // size) * size
        batches = split.batches(size, first, last)
        scores = scores_of(model, batches, task=task, numerics=numerics)
        return scores.between(images.start - first, images.stop - first)

    return largest_fitting(SCORING, device_of(model), batch_size, scored)
