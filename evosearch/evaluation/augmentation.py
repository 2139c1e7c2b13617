"""Random shifts and flips of training images, drawn for each image by itself."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random shift and flip, drawn for each image by itself.

    Attributes:
        crop: whether to shift, by up to an eighth of each side and at least one pixel.
        flip: whether to mirror left to right, half of the time.
        border: normalised value of a black pixel per channel, which fills what a shift uncovers.
    """

    crop: bool = False
    flip: bool = False
    border: tuple[float, ...] = ()

    def apply(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Returns images `(images, channels, height, width)`, each shifted and flipped anew."""
        if not (self.crop or self.flip):
            return images
        count, channels, height, width = images.shape
        rows = torch.arange(height).expand(count, height)
        columns = torch.arange(width).expand(count, width)
        if self.crop:
            rows = rows + _shifts(count, height, rng)
            columns = columns + _shifts(count, width, rng)
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
        return torch.where(inside, moved, torch.tensor(self.border).view(1, -1, 1, 1))


def _shifts(count: int, side: int, rng: torch.Generator) -> Tensor:
    reach = max(1, side // 8)
    return torch.randint(-reach, reach + 1, (count, 1), generator=rng)
