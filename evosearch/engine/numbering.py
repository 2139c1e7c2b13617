"""The number of a worker process: its own while it lives, the next one's when it ends."""

import fcntl
from pathlib import Path
from typing import final


@final
class WorkerNumber:
    """A number from 0 up to a count, held in a folder; the system frees it with the process.

    Processes come and go: the place of one that died is taken by the one that is started in its
    stead, and so is what goes by the number, such as a GPU.
    """

    def __init__(self, folder: Path, count: int) -> None:
        """Takes the lowest number that is free.

        Args:
            folder: whose processes share the numbers.
            count: of numbers. Where all are held, as by processes that are about to end, it is 0:
                to share a GPU is slow, and not wrong.
        """
        self.number = 0
        for number in range(count):
            self._file = (folder / str(number)).open("ab")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
            else:
                self.number = number
                return

    def release(self) -> None:
        """Frees the number."""
        self._file.close()
