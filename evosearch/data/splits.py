"""Images and labels, in splits whose types say what they may be used for.

A function that takes a `SearchSplit` cannot be handed a `TestSplit`: mypy refuses it, and so does
`require_split` at run time. `load_search_data` never shows the test split; `load_test_split` is
for `testing.py` alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Self, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from evosearch.data.augmentation import Augmentation
from evosearch.data.config import BATCHED, DataConfig
from evosearch.data.duplicates import Listed, require_distinct
from evosearch.data.imagecache import image_hashes, kept
from evosearch.data.images import Images, Indices, Positions
from evosearch.data.sources import Pool, load_pools
from evosearch.data.splitting import draw, listed
from evosearch.data.transforms import build_transform
from evosearch.errors import InputError
from evosearch.files import find


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """What all splits hold; only its five final subclasses are ever made.

    Attributes:
        images: read as float32, normalised, `(images, channels, height, width)`.
        labels: int64, `(images,)`, for classes; `(images, ...)` for a task of one's own.
        indices: int64, `(images,)`: positions in the data as its source orders it.
    """

    images: Images
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Positions) -> Self:
        """Returns the images at `positions` of this split, a split of the same type."""
        return replace(
            self,
            images=self.images.select(positions),
            labels=self.labels[positions],
            indices=self.indices[positions],
        )

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images and labels in order, `size` at a time and the rest at last."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.images[part], self.labels[part]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TrainSplit(Split):
    """Images for gradients, and for the statistics of a network that learns from them."""

    augmentation: Augmentation = field(default_factory=Augmentation)

    def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the augmented images and the labels at `positions`."""
        drawn = self.augmentation.transformed(self.images.raw(positions), rng)
        images = self.augmentation.apply(self.images.normalised(drawn), rng)
        return images, self.labels[positions]


@final
class CalibrationSplit(Split):
    """Images for statistics: BatchNorm, Gram matrices, sensitivities."""


@final
class SearchSplit(Split):
    """Images that the search scores on; also those that choose the best epoch."""


@final
class ConfirmationSplit(Split):
    """Images that no score has seen: they confirm what was chosen by its score elsewhere."""


@final
class TestSplit(Split):
    """Images that only the final report sees."""


AnySplit = TypeVar("AnySplit", bound=Split)


def require_split(split: object, *allowed: type[Split]) -> None:
    """Checks at run time what the types say: that a function got the split that it is meant for.

    Raises:
        TypeError: `split` is of another type, such as a `TestSplit`.
    """
    if type(split) not in allowed:
        names = " or ".join(kind.__name__ for kind in allowed)
        raise TypeError(f"expected a {names}, got a {type(split).__name__}")


@final
@dataclass(frozen=True, kw_only=True)
class SearchData:
    """Everything but the test split.

    Attributes:
        train: what networks learn from.
        calibration: what statistics come from.
        search: what candidates are scored on.
        confirmation: what the winner is measured on, once it is chosen; may be empty.

    Raises:
        InputError: an image is in two splits.
    """

    train: TrainSplit
    calibration: CalibrationSplit
    search: SearchSplit
    confirmation: ConfirmationSplit

    def __post_init__(self) -> None:
        _require_disjoint(self.train, self.calibration, self.search, self.confirmation)


def load_search_data(config: DataConfig, folder: Path = Path()) -> SearchData:
    """Loads all splits but the test split.

    Search is drawn first, then calibration, then confirmation: how many images confirm changes
    only which ones are left to train on.

    Args:
        config: the `[data]` section.
        folder: where the space file lies.

    Raises:
        InputError: the data cannot be loaded, or has too few images for the splits.
    """
    pool, _ = load_pools(config, folder)
    listed_images = _listed(pool) if config.check_duplicates else None
    pool = replace(pool, images=kept(pool.images))
    labels = _classes(pool)
    search = _search_positions(config, folder, pool, labels)
    rest = np.setdiff1d(np.arange(len(labels)), search)
    calibration = draw(labels, rest, config.calibration, config.seed, "calibration")
    rest = np.setdiff1d(rest, calibration)
    confirmation = draw(labels, rest, config.confirmation, config.seed, "confirmation")
    chosen = {
        "train": np.setdiff1d(rest, confirmation),
        "calibration": calibration,
        "search": search,
        "confirmation": confirmation,
    }
    if listed_images is not None:
        hashes, names = listed_images
        require_distinct({k: (hashes[v], [names[i] for i in v]) for k, v in chosen.items()})
    parts = {name: pool.take(positions) for name, positions in chosen.items()}
    augmentation = _augmentation(config, pool.images.pixels.shape[0])
    return SearchData(
        train=replace(_split(TrainSplit, parts["train"]), augmentation=augmentation),
        calibration=_split(CalibrationSplit, parts["calibration"]),
        search=_split(SearchSplit, parts["search"]),
        confirmation=_split(ConfirmationSplit, parts["confirmation"]),
    )


def load_test_split(config: DataConfig, folder: Path = Path()) -> TestSplit:
    """Loads the test split. For `testing.py` alone.

    Raises:
        InputError: the data cannot be loaded.
    """
    pool, held_out = load_pools(config, folder)
    if config.check_duplicates:
        require_distinct(
            {
                "train, calibration, search or confirmation": _listed(pool),
                "test": _listed(held_out),
            }
        )
    test = TestSplit(
        images=kept(held_out.images), labels=held_out.labels, indices=held_out.indices
    )
    _require_disjoint(pool, test)
    return test


def _split(kind: type[AnySplit], part: Pool) -> AnySplit:
    return kind(images=kept(part.images), labels=part.labels, indices=part.indices)


def _search_positions(config: DataConfig, folder: Path, pool: Pool, labels: Indices) -> Indices:
    if isinstance(config.search, str):
        advice = "give a number of images, or a file that lists them, one a line"
        listing = find(config.search, folder, "[data] search", advice)
        files = pool.images.files
        search = listed(listing, () if files is None else files.names)
        _require_rest(config, len(search), labels)
        return search
    _require_rest(config, config.search, labels)
    return draw(labels, np.arange(len(labels)), config.search, config.seed, "search")


def _listed(pool: Pool) -> Listed:
    """Returns the hashes and the names of a pool's images."""
    return image_hashes(pool.images), image_names(pool.images, pool.indices)


def image_names(images: Images, indices: Tensor) -> Sequence[str]:
    """Returns the name of each image: its file, or its position in the source, `(images,)`."""
    files = images.files
    return [f"image {index}" for index in indices.tolist()] if files is None else files.names


def _classes(pool: Pool) -> Indices:
    """Returns what the draws balance: classes, or nothing where labels are no classes."""
    labels = pool.labels
    is_class = labels.ndim == 1 and not labels.is_floating_point()
    return labels.numpy() if is_class else np.zeros(len(labels), dtype=np.int64)


def _require_rest(config: DataConfig, search: int, labels: Indices) -> None:
    left = len(labels) - config.calibration - search - config.confirmation
    classes = len(np.unique(labels))
    if left < classes:
        raise InputError(
            f"[data] calibration = {config.calibration}, search = {search} and confirmation ="
            f" {config.confirmation} leave {left} of {len(labels)} training images for {classes}"
            " classes; lower them"
        )


def _augmentation(config: DataConfig, channels: int) -> Augmentation:
    named = {entry.name: entry for entry in config.augment}
    others = [entry for entry in config.augment if entry.name not in BATCHED]
    black = tuple(-m / s for m, s in zip(config.mean, config.std, strict=True))
    return Augmentation(
        crop=named["crop"].arguments.get("border", "black") if "crop" in named else None,
        flip="flip" in named,
        black=black or (0.0,) * channels,
        transform=build_transform(others, "[data] augment"),
    )


def _require_disjoint(*splits: Split | Pool) -> None:
    for left, right in combinations(splits, 2):
        shared = np.intersect1d(left.indices, right.indices).size
        if shared:
            names = f"{type(left).__name__} and {type(right).__name__}"
            raise InputError(f"{names} share {shared} images; splits must be disjoint")
