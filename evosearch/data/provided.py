"""Splits that a user's callable returns: arrays, datasets, or loaders of datasets, by name."""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import DataLoader

from evosearch.data.datasets import dataset_of, require_dataset
from evosearch.data.pools import is_pair
from evosearch.data.splitting import TAKEN
from evosearch.errors import InputError, unknown_name

GIVEN = ("train", "test")
"""What every callable returns."""
_EXPECTED = f"(train, test), or a dict of these two and any of {', '.join(TAKEN)}"


def parts_of(returned: Any) -> dict[str, Any]:
    """Returns what a callable returned by split: a pair `(images, labels)`, or a dataset.

    Args:
        returned: `(train, test)`, or a dict with further splits.

    Raises:
        InputError: it is something else, or holds something else.
    """
    if isinstance(returned, Mapping):
        parts = {str(name): part for name, part in returned.items()}
    elif is_pair(returned):
        parts = dict(zip(GIVEN, returned, strict=True))
    else:
        came = f"{len(returned)} values" if isinstance(returned, tuple | list) else _kind(returned)
        raise InputError(f"returned {came}; expected {_EXPECTED}")
    for name in parts:
        if name not in (*GIVEN, *TAKEN):
            raise unknown_name("split", name, (*GIVEN, *TAKEN))
    for name in GIVEN:
        if name not in parts:
            raise InputError(f"returned no {name!r}; expected {_EXPECTED}")
    ordered = [name for name in (*GIVEN, *TAKEN) if name in parts]
    return {name: _opened(name, parts[name]) for name in ordered}


def _opened(name: str, part: Any) -> Any:
    try:
        if isinstance(part, DataLoader):
            return dataset_of(part)
        if not is_pair(part):
            require_dataset(part)
            return part
        if not hasattr(part[0], "__len__"):
            raise InputError(f"expected an array of images, got {_kind(part[0])}")
        return part
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
