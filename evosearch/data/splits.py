"""Images and labels, in splits whose types say what they may be used for.

A function that takes a `SearchSplit` cannot be handed a `TestSplit`: mypy refuses it, and so does
`require_split` at run time. `load_search_data` never shows the test split; `load_test_split` is
for `testing.py` alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Self, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from evosearch.calling import Inputs
from evosearch.data.augmentation import Augmentation
from evosearch.data.config import BATCHED, DataConfig
from evosearch.data.duplicates import Listed, require_distinct
from evosearch.data.imagecache import image_hashes, kept
from evosearch.data.images import Images, Indices, Positions
from evosearch.data.labels import Labels, kind_of
from evosearch.data.pools import Pool
from evosearch.data.several import AnyImages, SeveralImages
from evosearch.data.sources import load_pools
from evosearch.data.splitting import SPLITS, TAKEN, divided
from evosearch.data.transforms import build_transform
from evosearch.errors import InputError
from evosearch.seeding import Stream, generator


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """What all splits hold; only its five final subclasses are ever made.

    Attributes:
        images: read as float32, normalised, `(images, channels, height, width)`; or several
            tensors for each.
        labels: int64, `(images,)`, for classes; `(images, ...)` or nests for other tasks.
        indices: int64, `(images,)`: positions in the data as its source orders it.
    """

    images: AnyImages
    labels: Labels
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

    def batches(self, size: int) -> Iterator[tuple[Inputs, Labels]]:
        """Yields images and labels in order, `size` at a time and the rest at last."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.images[part], self.labels[part]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TrainSplit(Split):
    """Images for gradients, and for the statistics of a network that learns from them."""

    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def thread_safe(self) -> bool:
        """Whether a thread may make a batch while others draw and read.

        Not where transforms draw from torch's own generator, which is that of dropout as well.
        """
        return self.augmentation.transform is None and self.images.thread_safe

    def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Inputs, Labels]:
        """Returns the augmented images and the labels at `positions`."""
        if isinstance(self.images, SeveralImages):  # which no augmentation is for
            return self.images[positions], self.labels[positions]
        drawn = self.augmentation.transformed(self.images.raw(positions), rng)
        images = self.augmentation.apply(self.images.normalised(drawn), rng)
        return images, self.labels[positions]


@final
class CalibrationSplit(Split):
    """Images for statistics: BatchNorm, Gram matrices, sensitivities."""

    def shuffled(self, seed: int, count: int | None = None) -> Self:
        """Returns the images in an order that a run's seed draws; the first `count`, or all.

        Sources list images class by class; a batch of one class has other statistics than all.
        """
        order = generator(seed, Stream.STATISTICS, "order").permutation(len(self))
        return self.take(order[:count])


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

    What the source does not bring is taken out of its training images; see `divided`.

    Args:
        config: the `[data]` section.
        folder: where the space file lies.

    Raises:
        InputError: the data cannot be loaded, have too few images for the splits, or have an
            image in two of them.
    """
    pools = load_pools(config, folder)
    pool = pools["train"]()
    brought = {name: pools[name]() for name in pools if name in TAKEN}
    positions = divided(pool, brought, config, folder)
    for name, other in brought.items():
        require_alike(pool, other, name)
    if config.check_duplicates:
        _require_distinct(pool, positions, brought)
    elif brought and config.check_duplicates is None:
        # The test images too: what is found with them at last is found too late.
        _require_distinct(pool, positions, {**brought, "test": pools["test"]()})
    pool = replace(pool, images=kept(pool.images))
    parts = {name: pool.take(chosen) for name, chosen in positions.items()} | brought
    channels = pool.images.shape[0] if isinstance(pool.images, Images) else 0
    augmentation = _augmentation(config, channels)
    return SearchData(
        train=replace(_split(TrainSplit, parts["train"]), augmentation=augmentation),
        calibration=_split(CalibrationSplit, parts["calibration"]),
        search=_split(SearchSplit, parts["search"]),
        confirmation=_split(ConfirmationSplit, parts["confirmation"]),
    )


def load_test_split(config: DataConfig, folder: Path = Path()) -> TestSplit:
    """Loads the test split. For `testing.py` alone.

    Raises:
        InputError: the data cannot be loaded, or `[data] check_duplicates` finds an image of it
            in another split.
    """
    pools = load_pools(config, folder)
    held_out = pools["test"]()
    if config.check_duplicates:
        drawn = [name for name in SPLITS if name not in pools or name == "train"]
        *others, last = drawn
        held = {f"{', '.join(others)} or {last}" if others else last: _listed(pools["train"]())}
        held |= {name: _listed(pools[name]()) for name in pools if name in TAKEN}
        require_distinct(held | {"test": _listed(held_out)})
    return _split(TestSplit, held_out)


def _split(kind: type[AnySplit], part: Pool) -> AnySplit:
    return kind(images=kept(part.images), labels=part.labels, indices=part.indices)


def require_alike(train: Pool | TrainSplit, other: Pool, name: str) -> None:
    """Checks that a split has images and labels of the kind that the training images have.

    Raises:
        InputError: it has others; says which.
    """
    shapes = [part.images.shape for part in (train, other)]
    if shapes[0] != shapes[1]:
        raise InputError(f"[data] {name}: images of shape {shapes[1]}, in train {shapes[0]}")
    kinds = [kind_of(part.labels) for part in (train, other)]
    if kinds[0] != kinds[1]:
        raise InputError(f"[data] {name}: labels of type {kinds[1]}, in train {kinds[0]}")


def _require_distinct(
    pool: Pool, positions: Mapping[str, Indices], others: Mapping[str, Pool]
) -> None:
    """Checks that no image is in two splits: of one pool, by position, and of other pools."""
    hashes, names = _listed(pool)
    held: dict[str, Listed] = {
        name: (hashes[chosen], [names[position] for position in chosen])
        for name, chosen in positions.items()
    }
    held |= {name: _listed(other) for name, other in others.items()}
    require_distinct({name: held[name] for name in (*SPLITS, "test") if name in held})


def _listed(pool: Pool) -> Listed:
    """Returns the hashes and the names of a pool's images."""
    return image_hashes(pool.images), image_names(pool.images, pool.indices)


def image_names(images: AnyImages, indices: Tensor) -> Sequence[str]:
    """Returns the name of each image: its file, or its position in the source, `(images,)`."""
    files = images.files
    return [f"image {index}" for index in indices.tolist()] if files is None else files.names


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


def _require_disjoint(*splits: Split) -> None:
    for left, right in combinations(splits, 2):
        shared = np.intersect1d(left.indices, right.indices).size
        if shared:
            names = f"{type(left).__name__} and {type(right).__name__}"
            raise InputError(f"{names} share {shared} images; splits must be disjoint")
