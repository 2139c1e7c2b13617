"""The lock of a run: one process at a time works on it."""

import fcntl
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from evosearch.errors import InputError
from evosearch.files import writing
from evosearch.run.folder import RunFolder


@final
class RunLock:
    """Holds a run for one process; the system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Takes the lock.

        Raises:
            InputError: another process holds it; says which, where and since when.
            StorageError: the folder cannot be written to.
        """
        path = RunFolder(folder).lock
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
