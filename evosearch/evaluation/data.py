"""Images and labels, in splits whose types say what they may be used for.

A function that takes a `SearchSplit` cannot be handed a `TestSplit`: mypy refuses it, and so does
`require_split` at run time. `load_search_data` never shows the test split; `load_test_split` is
for `testing.py` alone.
"""

import os
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from evosearch.errors import InputError
from evosearch.evaluation.augmentation import Augmentation
from evosearch.evaluation.models import one_line, resolve_callable
from evosearch.seeding import Stream, generator

DIGITS_TEST = 450
"""Images of the digits that no search sees: a quarter, as no official split ships with them."""

Indices = NDArray[np.int64]


class DataConfig(BaseModel):
    """Which images, and how they are split.

    Attributes:
        name: "digits", or a callable as "module:callable" or "file.py:callable" that returns
            `((train_images, train_labels), (test_images, test_labels))`.
        root: folder of the data, handed to the callable as `root`; relative to the space file,
            or else to $EVOSEARCH_DATA.
        mean: of each channel, subtracted; pixels are in [0, 1] before. Empty: none.
        std: of each channel, divided by. Empty: none.
        augment: what training does to each image: "crop" shifts it by up to an eighth of its
            side, "flip" mirrors it left to right half of the time.
        calibration: images for statistics, taken out of the training images.
        search: images that the search scores on, taken out of the training images.
        seed: draws the splits. It belongs to the space and not to a run, because the base
            network has seen the train split.
        kwargs: further arguments of the callable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augment: tuple[Literal["crop", "flip"], ...] = ()
    calibration: int = Field(ge=2)
    search: int = Field(ge=2)
    seed: int = Field(default=0, ge=0)
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _mean_goes_with_std(self) -> Self:
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise ValueError("mean and std need one value per channel each, std above 0")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """What all splits hold; only its four final subclasses are ever made.

    Attributes:
        images: float32, normalised, `(images, channels, height, width)`.
        labels: int64, `(images,)`.
        indices: int64, `(images,)`: positions in the data as its source orders it.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor | Indices) -> Self:
        """Returns the images at `positions` of this split, a split of the same type."""
        chosen = torch.as_tensor(positions)
        return replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            indices=self.indices[chosen],
        )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TrainSplit(Split):
    """Images for gradients."""

    augmentation: Augmentation = field(default_factory=Augmentation)

    def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns the augmented images and the labels at `positions`."""
        images = self.augmentation.apply(self.images[positions], rng)
        return images, self.labels[positions]


@final
class CalibrationSplit(Split):
    """Images for statistics: BatchNorm, Gram matrices, sensitivities."""


@final
class SearchSplit(Split):
    """Images that the search scores on; also those that choose the best epoch."""


@final
class TestSplit(Split):
    """Images that only the final report sees."""


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
    """Everything that a search may see.

    Raises:
        InputError: an image is in two splits.
    """

    train: TrainSplit
    calibration: CalibrationSplit
    search: SearchSplit

    def __post_init__(self) -> None:
        _require_disjoint(self.train, self.calibration, self.search)


def load_search_data(config: DataConfig, folder: Path = Path()) -> SearchData:
    """Loads the splits that a search may see.

    Args:
        config: the `[data]` section.
        folder: where the space file lies.

    Raises:
        InputError: the data cannot be loaded, or has too few images for the splits.
    """
    pool, _ = _load(config, folder)
    labels = pool.labels.numpy()
    classes = len(np.unique(labels))
    left = len(labels) - config.calibration - config.search
    if left < classes:
        raise InputError(
            f"[data] calibration = {config.calibration} and search = {config.search} leave {left}"
            f" of {len(labels)} training images for {classes} classes; lower them"
        )
    rest = np.arange(len(labels))
    search = _draw(labels, rest, config.search, config.seed, "search")
    rest = np.setdiff1d(rest, search)
    calibration = _draw(labels, rest, config.calibration, config.seed, "calibration")
    train = np.setdiff1d(rest, calibration)
    border = tuple(-m / s for m, s in zip(config.mean, config.std, strict=True))
    augmentation = Augmentation(
        crop="crop" in config.augment,
        flip="flip" in config.augment,
        border=border or (0.0,) * pool.images.shape[1],
    )
    return SearchData(
        train=TrainSplit(**vars(pool.take(train)), augmentation=augmentation),
        calibration=CalibrationSplit(**vars(pool.take(calibration))),
        search=SearchSplit(**vars(pool.take(search))),
    )


def load_test_split(config: DataConfig, folder: Path = Path()) -> TestSplit:
    """Loads the test split. For `testing.py` alone.

    Raises:
        InputError: the data cannot be loaded.
    """
    pool, held_out = _load(config, folder)
    test = TestSplit(**vars(held_out))
    _require_disjoint(pool, test)
    return test


def _draw(labels: Indices, among: Indices, count: int, seed: int, purpose: str) -> Indices:
    """Returns `count` of the positions `among`, sorted, with the classes in proportion."""
    rng = generator(seed, Stream.SPLIT, purpose)
    classes, sizes = np.unique(labels[among], return_counts=True)
    quotas = count * sizes / len(among)
    taken = np.floor(quotas).astype(np.int64)
    # Largest remainders first; of equal ones the earlier class.
    order = np.argsort(taken - quotas, kind="stable")
    taken[order[: count - taken.sum()]] += 1
    chosen = [
        rng.permutation(among[labels[among] == label])[:number]
        for label, number in zip(classes, taken, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _require_disjoint(*splits: Split) -> None:
    for left, right in combinations(splits, 2):
        shared = np.intersect1d(left.indices, right.indices).size
        if shared:
            names = f"{type(left).__name__} and {type(right).__name__}"
            raise InputError(f"{names} share {shared} images; splits must be disjoint")


def _load(config: DataConfig, folder: Path) -> tuple[Split, Split]:
    """Returns the training images and the test images, normalised."""
    if config.name == "digits":
        pools = _load_digits(config)
    elif ":" in config.name:
        pools = _load_callable(config, folder)
    else:
        raise InputError(f"[data] name = {config.name!r}: expected 'digits' or 'module:callable'")
    train, test = (_normalised(pool, config) for pool in pools)
    return train, test


def _load_digits(config: DataConfig) -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    if config.kwargs or config.root is not None:
        raise InputError("[data] name = 'digits' takes neither root nor kwargs")
    digits = load_digits()
    images = digits.images[:, None].astype(np.float32) / 16
    everything = _pool(images, digits.target.astype(np.int64), 0)
    positions = everything.indices.numpy()
    test = _draw(everything.labels.numpy(), positions, DIGITS_TEST, config.seed, "test")
    return everything.take(np.setdiff1d(positions, test)), everything.take(test)


def _load_callable(config: DataConfig, folder: Path) -> tuple[Split, Split]:
    load = resolve_callable(config.name, folder, "[data] name")
    arguments = dict(config.kwargs)
    if config.root is not None:
        arguments["root"] = _resolve_root(config.root, folder)
    try:
        (train_images, train_labels), (test_images, test_labels) = load(**arguments)
        train = _pool(train_images, train_labels, 0)
        return train, _pool(test_images, test_labels, len(train))
    except Exception as error:
        raise InputError(f"[data] name = {config.name!r}: {one_line(error)}") from error


def _resolve_root(root: str, folder: Path) -> Path:
    places = [folder, *map(Path, filter(None, [os.environ.get("EVOSEARCH_DATA")]))]
    for place in places:
        if (place / root).exists():
            return place / root
    raise InputError(f"root {root!r} is not in {' nor in '.join(map(str, places))}")


def _pool(images: Any, labels: Any, first_index: int) -> Split:
    """Returns what a callable gave: bytes as shares of 255, other numbers as they are."""
    pixels, targets = torch.as_tensor(images), torch.as_tensor(labels)
    if pixels.ndim != 4 or targets.ndim != 1 or len(pixels) != len(targets):
        raise InputError(
            "expected images (images, channels, height, width) and labels (images,), got"
            f" {tuple(pixels.shape)} and {tuple(targets.shape)}"
        )
    if targets.is_floating_point() or len(targets) < 2 or int(targets.min()) < 0:
        raise InputError("expected two or more labels, integers from 0")
    scale = 255 if pixels.dtype == torch.uint8 else 1
    return Split(
        images=pixels.to(torch.float32) / scale,
        labels=targets.to(torch.int64),
        indices=torch.arange(first_index, first_index + len(targets)),
    )


def _normalised(pool: Split, config: DataConfig) -> Split:
    if not config.mean:
        return pool
    channels = pool.images.shape[1]
    if len(config.mean) != channels:
        raise InputError(
            f"[data] mean and std have {len(config.mean)} values, the images {channels} channels"
        )
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.mean, config.std))
    return replace(pool, images=(pool.images - mean) / std)
