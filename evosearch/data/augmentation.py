"""Random changes to training images, drawn for each image by itself."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evosearch.callables import one_line
from evosearch.data.config import Border
from evosearch.data.transforms import Transform
from evosearch.errors import InputError
from evosearch.machine import torch_seeded


@final
@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes, drawn for each image by itself.

    Attributes:
        crop: what fills the border when an image is shifted, by up to an eighth of each side and
            at least one pixel; None does not shift. Best is what the base network was trained
            with: what it never saw, it teaches wrongly.
        flip: whether to mirror left to right, half of the time.
        black: normalised value of a black pixel per channel.
        transform: what else is drawn, for one image `(channels, height, width)` at a time,
            before it is normalised.
    """

    crop: Border | None = None
    flip: bool = False
    black: tuple[float, ...] = ()
    transform: Transform | None = None

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self.crop is not None or self.flip or self.transform is not None

    def transformed(self, raw: Tensor, rng: torch.Generator) -> Tensor:
        """Returns images that are not normalised yet, each by `transform` anew.

        Args:
            raw: `(images, channels, height, width)`, uint8 or float32.
            rng: seeds torch's own generator, which the transforms draw from.

        Raises:
            InputError: the transform fails on an image.
        """
        if self.transform is None:
            return raw
        with torch_seeded(int(torch.randint(2**31, (), generator=rng))):
            try:
                return torch.stack([self.transform(image) for image in raw])
            except Exception as error:
                raise InputError(f"[data] augment: {one_line(error)}") from error

    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Returns normalised images, each shifted and flipped anew.

        Args:
            images: `(images, channels, height, width)`.
            rng: of the CPU.
        """
        if self.crop is None and not self.flip:
            return images
        count, channels, height, width = images.shape
        rows = torch.arange(height).expand(count, height)
        columns = torch.arange(width).expand(count, width)
        if self.crop is not None:
            rows = rows + _shifts(count, height, rng)
            columns = columns + _shifts(count, width, rng)
        if self.crop == "mirror":
            rows, columns = _mirrored(rows, height), _mirrored(columns, width)
        if self.flip:
            mirrored = torch.rand((count, 1), generator=rng) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        row_inside = (rows >= 0) & (rows < height)
        column_inside = (columns >= 0) & (columns < width)
        moved = images[
            torch.arange(count).view(-1, 1, 1, 1),
            torch.arange(channels).view(1, -1, 1, 1),
            rows.clamp(0, height - 1).view(count, 1, height, 1),
            columns.clamp(0, width - 1).view(count, 1, 1, width),
        ]
        inside = row_inside.view(count, 1, height, 1) & column_inside.view(count, 1, 1, width)
        return torch.where(inside, moved, torch.tensor(self.black).view(1, -1, 1, 1))


def _mirrored(indices: Tensor, side: int) -> Tensor:
    """Returns indices with those outside mirrored back in, at the first and the last pixel."""
    last = side - 1
    return (last - (last - indices.abs()).abs()).clamp(min=0)  # zero where there is one pixel


def _shifts(count: int, side: int, rng: torch.Generator) -> Tensor:
    reach = max(1, side // 8)
    return torch.randint(-reach, reach + 1, (count, 1), generator=rng)
