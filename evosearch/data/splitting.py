"""The draw of a split: images with the classes in proportion, or those that a file lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evosearch.data.images import Indices
from evosearch.errors import InputError
from evosearch.seeding import Stream, generator


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
