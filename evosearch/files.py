"""Files that a program depends on: written whole or not at all, held by one process."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

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


@final
class RunLock:
    """Holds a run for one process; the system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Takes the lock.

        Raises:
            InputError: another process holds it; says which, where and since when.
            StorageError: the folder cannot be written to.
        """
        path = folder / "lock"
        with writing(path):
            self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().decode(errors="replace").strip() or "another process"
            self._file.close()
            raise InputError(
                f"{folder}: in use by {holder}; wait for it, or stop it, and try again"
            ) from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        with writing(path):
            self._file.truncate(0)
            self._file.write(f"pid {os.getpid()} on {socket.gethostname()} since {since}".encode())

    def release(self) -> None:
        """Frees the lock."""
        self._file.close()


def write_json(path: Path, data: Any) -> None:
    """Writes JSON by way of a temporary name, so that a file is whole or absent."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text by way of a temporary name, so that a file is whole or absent."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
