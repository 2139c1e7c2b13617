"""The draw of splits: images with the classes in proportion, or those that a file lists."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from evosearch.data.config import DataConfig
from evosearch.data.images import Indices
from evosearch.data.labels import class_numbers
from evosearch.data.pools import Pool
from evosearch.errors import InputError
from evosearch.files import find
from evosearch.seeding import Stream, generator

SPLITS = ("train", "calibration", "search", "confirmation")
"""The splits that a search may see."""
TAKEN = ("search", "calibration", "confirmation")
"""Splits that are taken out of the training images, in this order, unless a callable brings them:
how many images confirm changes only which ones are left to train on."""


def divided(
    pool: Pool, brought: Collection[str], config: DataConfig, folder: Path
) -> dict[str, Indices]:
    """Returns which of the training images go to which split, sorted.

    Args:
        pool: the training images.
        brought: names of splits that are there already.
        config: the `[data]` section.
        folder: where the space file lies.

    Returns:
        Positions in the pool by split; "train" has what the others leave.

    Raises:
        InputError: a split is asked for twice or not at all, or there are too few images.
    """
    _require_said_once(brought, config)
    labels = class_numbers(pool.labels)
    chosen: dict[str, Indices] = {}
    if isinstance(config.search, str):
        advice = "give a number of images, or a file that lists them, one a line"
        listing = find(config.search, folder, "[data] search", advice)
        files = pool.images.files
        chosen["search"] = listed(listing, () if files is None else files.names)
    sizes = {name: getattr(config, name) for name in TAKEN if name not in brought}
    sizes |= {name: len(positions) for name, positions in chosen.items()}
    _require_rest(sizes, labels)
    rest = np.arange(len(labels))
    for name, size in sizes.items():
        if name not in chosen:
            chosen[name] = draw(labels, rest, size, config.seed, name)
        rest = np.setdiff1d(rest, chosen[name])
    return {"train": rest, **chosen}


def draw(labels: Indices, among: Indices, count: int, seed: int, purpose: str) -> Indices:
    """Returns `count` of the positions `among`, sorted, with the classes in proportion.

    Args:
        labels: class of every image, `(images,)`.
        among: positions to draw from.
        count: positions to draw.
        seed: of the draw.
        purpose: tells this draw from others.
    """
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


def listed(path: Path, names: Sequence[str]) -> Indices:
    """Returns the positions of the images that a file lists, sorted.

    Args:
        path: a text file with one name a line.
        names: of all training images, such as `train/cat/0001.jpg`; empty where they have none.

    Raises:
        InputError: the images have no names, the file cannot be read, or a line names no
            training image or one for the second time.
    """
    if not names:
        raise InputError(
            f"[data] search = {str(path)!r} lists files, but these images have no file names;"
            " give a number of images"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no list of images ({error})") from error
    position_of = {name: position for position, name in enumerate(names)}
    chosen: set[int] = set()
    for number, line in enumerate(lines, 1):
        if not (name := line.strip()):
            continue
        if name not in position_of:
            raise InputError(
                f"{path}: line {number}: no training image {name!r}; expected names such as"
                f" {names[0]!r}"
            )
        if position_of[name] in chosen:
            raise InputError(f"{path}: line {number}: {name!r} is listed twice")
        chosen.add(position_of[name])
    if len(chosen) < 2:
        raise InputError(f"{path}: lists {len(chosen)} images; a search needs two or more")
    return np.array(sorted(chosen), dtype=np.int64)


def _require_said_once(brought: Collection[str], config: DataConfig) -> None:
    for name in TAKEN:
        said = getattr(config, name)
        if name in brought and said:
            raise InputError(
                f"[data] {name} = {said!r}, but {config.name!r} brings a {name} split; leave one"
                " of the two out"
            )
        if name not in brought and said is None:
            raise InputError(
                f"[data] {name} is missing, and {config.name!r} brings no {name} split; give the"
                " number of training images that are set aside for it"
            )


def _require_rest(sizes: Mapping[str, int], labels: Indices) -> None:
    left = len(labels) - sum(sizes.values())
    classes = len(np.unique(labels))
    if left < classes:
        *others, last = (f"{name} = {sizes[name]}" for name in SPLITS if name in sizes)
        asked = f"{', '.join(others)} and {last}" if others else last
        raise InputError(
            f"[data] {asked} leave {left} of {len(labels)} training images for {classes} classes;"
            " lower them"
        )
