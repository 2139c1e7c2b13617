"""Files that a program depends on: written whole or not at all, held by one process."""

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from evosearch.errors import InputError


@final
class RunLock:
    """Holds a run for one process; the system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Takes the lock.

        Raises:
            InputError: another process holds it; says which, where and since when.
        """
        self._file = (folder / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise InputError(f"{folder}: in use by {holder}") from error
        self._file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._file.write(f"pid {os.getpid()} on {socket.gethostname()} since {since}")
        self._file.flush()

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
