"""Images as bytes in memory or as files, and views of them that normalise what is read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evosearch.callables import one_line
from evosearch.data.transforms import Transform
from evosearch.errors import InputError

Indices = NDArray[np.int64]
Positions = Tensor | Indices | slice


@final
@dataclass(frozen=True, kw_only=True)
class Files:
    """Where images come from that are a file each.

    Attributes:
        root: the folder of the data.
        names: of the files in it, such as `train/cat/0001.jpg`.
    """

    root: Path
    names: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> Path:
        return self.root / self.names[position]

    def select(self, positions: Indices) -> Self:
        """Returns a choice of these files."""
        return replace(self, names=tuple(self.names[position] for position in positions.tolist()))


class Pixels(Protocol):
    """Images as their source gives them, before normalisation."""

    @property
    def files(self) -> Files | None:
        """The file of each image, where each has one."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image."""
        ...

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may read at once."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def read(self, positions: Indices) -> Tensor:
        """Returns a new tensor `(images, channels, height, width)`: uint8, or float32."""
        ...


@final
class StoredPixels:
    """Images in an array; one that is mapped from a file is read by the system as needed."""

    thread_safe = True

    def __init__(self, array: NDArray[Any], files: Files | None = None) -> None:
        """Takes `(images, channels, height, width)`, uint8 or float32, and the files of each."""
        self._array = array
        self.files = files
        self.shape: tuple[int, ...] = array.shape[1:]

    def __len__(self) -> int:
        return len(self._array)

    def read(self, positions: Indices) -> Tensor:
        """See `Pixels.read`."""
        return torch.from_numpy(self._array[positions])


@final
class LazyPixels:
    """Images that are loaded and transformed whenever they are asked for."""

    def __init__(
        self,
        load: Callable[[int], Any],
        count: int,
        transform: Transform | None,
        *,
        recipe: str = "",
        files: Files | None = None,
        planar: bool = True,
        first: Any = None,
    ) -> None:
        """Loads the first image, which tells the shape of all.

        Args:
            load: gives the image at a position: of Pillow, or `(channels, height, width)`.
            count: number of images.
            transform: what is done to each; it must leave all of one shape.
            recipe: says what `transform` does, so that its results can be told apart.
            files: where each image comes from, where it comes from a file; those are loaded by
                as many threads as torch has.
            planar: whether each must be a picture, and not a tensor of any shape.
            first: the first image, where that is loaded already.

        Raises:
            InputError: the first image cannot be loaded.
        """
        self._load, self._count, self._transform = load, count, transform
        self.recipe, self.files, self._planar = recipe, files, planar
        pixels = self._pixels(self._loaded(0) if first is None else first, 0)
        self.shape: tuple[int, ...] = tuple(pixels.shape)
        self.dtype = pixels.dtype
        self.image_bytes = pixels.nbytes

    def __len__(self) -> int:
        return self._count

    def read(self, positions: Indices) -> Tensor:
        """See `Pixels.read`.

        Raises:
            InputError: an image cannot be loaded, or is of another shape or type than the first.
        """
        workers = torch.get_num_threads() if self.files is not None else 1
        if workers == 1:
            images = [self._one(int(position)) for position in positions]
        else:
            with ThreadPoolExecutor(workers) as pool:
                images = list(pool.map(self._one, map(int, positions)))
        return torch.stack(images)

    @property
    def thread_safe(self) -> bool:
        """See `Pixels.thread_safe`: a dataset that is no files may be anything."""
        return self.files is not None

    def decoded(self, image: Any, position: int) -> Tensor:
        """Returns an image that was loaded, transformed, as `read` does.

        Args:
            image: of Pillow, or `(channels, height, width)`.
            position: where it is from, for messages.

        Raises:
            InputError: it is no image, or is of another shape or type than the first.
        """
        pixels = self._pixels(image, position)
        if pixels.shape != self.shape:
            raise InputError(
                f"{self._name(position)}: an image of shape {tuple(pixels.shape)}, while the"
                f" first has {self.shape}; give [[data.transforms]] such as Resize and"
                " CenterCrop that make them alike"
            )
        if pixels.dtype != self.dtype:
            raise InputError(
                f"{self._name(position)}: an image of type {pixels.dtype}, while the first has"
                f" {self.dtype}; bytes are divided by 255, other numbers are not"
            )
        return pixels

    def _one(self, position: int) -> Tensor:
        return self.decoded(self._loaded(position), position)

    def _loaded(self, position: int) -> Any:
        try:
            return self._load(position)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self._name(position)}: {one_line(error)}") from error

    def _pixels(self, image: Any, position: int) -> Tensor:
        try:
            transformed = image if self._transform is None else self._transform(image)
            return _as_pixels(transformed, planar=self._planar)
        except Exception as error:
            raise InputError(f"{self._name(position)}: {one_line(error)}") from error

    def _name(self, position: int) -> str:
        return f"image {position}" if self.files is None else str(self.files[position])


def _as_pixels(image: Any, *, planar: bool) -> Tensor:
    """Returns an image as `(channels, height, width)`, bytes as they are, others as float32."""
    from PIL.Image import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    pixels: Tensor = pil_to_tensor(image) if isinstance(image, Image) else torch.as_tensor(image)
    if (planar and pixels.ndim != 3) or pixels.is_complex():
        raise InputError(
            f"expected a Pillow image or (channels, height, width), got {pixels.dtype} of shape"
            f" {tuple(pixels.shape)}"
        )
    pixels = pixels.detach().cpu()
    if pixels.dtype == torch.uint8:
        return pixels
    pixels = pixels.to(torch.float32)
    if not bool(pixels.isfinite().all()):
        raise InputError("an image with values that are not finite")
    return pixels


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """A choice of images, normalised as they are read.

    Attributes:
        pixels: where they are.
        positions: which of them these are, `(images,)`.
        mean: of each channel, subtracted; empty: none.
        std: of each channel, divided by; empty: none.
    """

    pixels: Pixels
    positions: Indices = field(repr=False)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image."""
        return self.pixels.shape

    @property
    def thread_safe(self) -> bool:
        """See `Pixels.thread_safe`."""
        return self.pixels.thread_safe

    @property
    def files(self) -> Files | None:
        """The file of each of these images, where each has one."""
        files = self.pixels.files
        return None if files is None else files.select(self.positions)

    def __getitem__(self, chosen: Positions) -> Tensor:
        """Returns images as float32, normalised, `(images, channels, height, width)`."""
        return self.normalised(self.raw(chosen))

    def raw(self, chosen: Positions) -> Tensor:
        """Returns images as their source gives them: uint8, or float32."""
        return self.pixels.read(self.positions[_as_index(chosen)])

    def normalised(self, raw: Tensor) -> Tensor:
        """Returns what `raw` gave as float32: bytes as shares of 255, minus mean, over std.

        It is done on the device that they are on.
        """
        images = raw.to(torch.float32)
        if raw.dtype == torch.uint8:
            images = images.div_(255)
        if not self.mean:
            return images
        constants = (self.mean, self.std)
        mean, std = (torch.tensor(v, device=raw.device).view(1, -1, 1, 1) for v in constants)
        return (images - mean).div_(std)

    def select(self, chosen: Positions) -> Self:
        """Returns a choice of these images; none is read or copied."""
        return replace(self, positions=self.positions[_as_index(chosen)])


def _as_index(chosen: Positions) -> Indices | slice:
    return chosen.cpu().numpy() if isinstance(chosen, Tensor) else chosen
