"""Scenes of handwritten digits: several of scikit-learn's, at random places and sizes.

`segmentation` and `detection` give the same images, with the class of each pixel or with boxes.
The splits are made from different originals.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIDE = 64
"""Of a scene, in pixels; an original has 8."""
SIZES = (14, 26)
"""Of a digit in a scene, from and to."""
MOST = 5
"""Digits in a scene."""
INK = 0.35
"""Grey value from which a pixel belongs to a digit."""
SPLITS = {"train": 1000, "search": 300, "confirmation": 200, "test": 300}
"""Scenes, each split of as large a share of the originals."""

Scene = tuple[NDArray[np.uint8], NDArray[np.uint8], list[list[int]], list[int]]


def segmentation() -> dict[str, tuple[Any, Any]]:
    """Each pixel has its digit's class plus one, and 0 where there is none."""
    return {
        name: (np.stack([s[0] for s in scenes])[:, None], np.stack([s[1] for s in scenes]))
        for name, scenes in _splits().items()
    }


def detection() -> dict[str, tuple[Any, Any]]:
    """Each image has boxes, left, top, right and bottom, and their digits."""
    return {
        name: (
            np.stack([s[0] for s in scenes])[:, None],
            [{"boxes": np.array(s[2], np.float32), "labels": np.array(s[3])} for s in scenes],
        )
        for name, scenes in _splits().items()
    }


def originals(classes: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Which of scikit-learn's digits each split is made from: none of them is in two."""
    rest, left, found = np.arange(len(classes)), sum(SPLITS.values()), {}
    for seed, (name, count) in enumerate(SPLITS.items()):
        found[name] = rest
        if count < left:
            share = round(len(rest) * count / left)
            found[name], rest = train_test_split(
                rest, train_size=share, stratify=classes[rest], random_state=seed
            )
        left -= count
    return found


def _splits() -> dict[str, list[Scene]]:
    digits = load_digits()
    scenes = {}
    for seed, (name, own) in enumerate(originals(digits.target).items()):
        rng = np.random.default_rng(seed)
        scenes[name] = [_scene(digits, own, rng) for _ in range(SPLITS[name])]
    return scenes


def _scene(digits: Any, originals: NDArray[np.int64], rng: np.random.Generator) -> Scene:
    pixels, classes = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), np.uint8)
    boxes: list[list[int]] = []
    labels: list[int] = []
    wanted = rng.integers(1, MOST + 1)
    while len(boxes) < wanted:
        chosen = rng.choice(originals)
        digit = _enlarged(digits.images[chosen] / 16, int(rng.integers(*SIZES)))
        top, left = rng.integers(0, SIDE - len(digit), 2)
        place = slice(top, top + len(digit)), slice(left, left + len(digit))
        if classes[place].any():
            continue
        ink = digit >= INK
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        pixels[place] = np.maximum(pixels[place], digit)
        classes[place][ink] = digits.target[chosen] + 1
        boxes.append(
            [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
        )
        labels.append(int(digits.target[chosen]))
    noisy = pixels + rng.normal(0, 0.08, pixels.shape)
    return (255 * noisy.clip(0, 1)).astype(np.uint8), classes, boxes, labels


def _enlarged(digit: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Returns an original, interpolated between its pixels."""
    at = np.linspace(0, len(digit) - 1, side)
    low = np.minimum(at.astype(int), len(digit) - 2)
    part = at - low
    rows = digit[low] * (1 - part)[:, None] + digit[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part
