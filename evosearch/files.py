"""Files that a program depends on: written whole or not at all, held by one process."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from evosearch.errors import EvosearchError, InputError


class StorageError(EvosearchError):
    """A file cannot be written: the disk is full, or may not be written to."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says against writing a file inside the block into one clear line.

    Raises:
        StorageError: it cannot be written; what was written before is whole.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); what is finished is kept,"
            " so make room or give leave to write, and go on"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside a file for what takes its place at the end of the block, at once.

    The name is nobody else's, so that of several processes that write the same file one wins and
    none fails. Where the block fails, the file stays as it was.
    """
    temporary = path.with_name(f".{uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Writes JSON by way of a temporary name, so that a file is whole or absent."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text by way of a temporary name, so that a file is whole or absent."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
