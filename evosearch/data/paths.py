"""Where the files that a space names lie: beside the space file, or under $EVOSEARCH_DATA."""

import os
from pathlib import Path

from evosearch.errors import InputError


def find(name: str, folder: Path, where: str, advice: str, *, holding: str = "") -> Path:
    """Returns the file or folder that a space file names.

    Args:
        name: as written; absolute, or relative to `folder`, or else to $EVOSEARCH_DATA.
        folder: where the space file lies.
        where: the key that names it, for messages.
        advice: what to do where it is missing, for messages.
        holding: what must be in it, where it is a folder.

    Raises:
        InputError: it is in neither place; says where it looked and what to do.
    """
    extra = os.environ.get("EVOSEARCH_DATA")
    places = [folder, *([Path(extra)] if extra else [])]
    for place in places:
        if (place / name / holding).exists():
            return place / name
    looked = " nor at ".join(str((place / name / holding).absolute()) for place in places)
    unset = "" if extra else "; $EVOSEARCH_DATA, where it may lie too, is not set"
    raise InputError(f"{where} = {name!r}: nothing at {looked}{unset}; {advice}")


def cache_folder() -> Path:
    """Returns where results that can be made again are kept: $EVOSEARCH_CACHE or a default."""
    return Path(os.environ.get("EVOSEARCH_CACHE") or Path.home() / ".cache" / "evosearch")
