"""The check that no two splits share an image, by content."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError

Listed = tuple[NDArray[np.uint8], Sequence[str]]
"""Hashes of images, `(images, 16)`, and what messages call them."""


def require_distinct(splits: Mapping[str, Listed]) -> None:
    """Checks that no image is in two splits.

    Args:
        splits: name of a split -> its images.

    Raises:
        InputError: names two splits, how many images they share, and one of these.
    """
    for (left, (of_left, names)), (right, (of_right, others)) in combinations(splits.items(), 2):
        where = {row.tobytes(): position for position, row in enumerate(of_left)}
        found = [(where.get(row.tobytes()), position) for position, row in enumerate(of_right)]
        shared = [(first, second) for first, second in found if first is not None]
        if shared:
            first, second = shared[0]
            raise InputError(
                f"[data] check_duplicates: {len(shared)} images of the {right} split are in the"
                f" {left} split too: {others[second]} is {names[first]}; take them out of one,"
                " as what is measured on them is too good"
            )
