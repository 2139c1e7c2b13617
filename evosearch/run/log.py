"""The log of a run: a file in its folder, one line for each event.

A line is a time (UTC), a level, the name of an event and its values as `key=value`, those with
spaces in JSON's quotes. The file grows session by session and may be deleted. What it is told
goes on to Python's logger "evosearch" too, for programs that listen there.
"""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from evosearch.callables import one_line
from evosearch.errors import InputError
from evosearch.files import StorageError, writing
from evosearch.run.folder import RunFolder
from evosearch.study.trial import Trial

LOGGER = "evosearch"


@final
class RunLog:
    """Writes the log of a run while this process holds it."""

    def __init__(self, folder: Path) -> None:
        """Opens the log of the run in a folder.

        Raises:
            StorageError: it cannot be written to.
        """
        path = RunFolder(folder).log
        with writing(path):
            self._handler = _Handler(path, encoding="utf-8")
        self._handler.setFormatter(_Lines())
        # Not registered by name: two runs of one process write to a file each.
        self._logger = logging.Logger(f"{LOGGER}.run", logging.DEBUG)
        self._logger.parent = logging.getLogger(LOGGER)
        self._logger.addHandler(self._handler)

    def event(self, name: str, level: int = logging.INFO, **values: object) -> None:
        """Writes a line; what cannot be written is dropped, and ends no search."""
        shown = " ".join(f"{key}={_shown(value)}" for key, value in values.items())
        self._logger.log(level, "%s", f"{name} {shown}".strip())

    def trial(self, trial: Trial) -> None:
        """Writes a line on a trial that was recorded; a failure of its own is a warning."""
        failed = trial.error is not None and trial.duplicate_of is None
        evaluation = trial.evaluation
        values = {
            "number": trial.number,
            "generation": trial.generation,
            "state": trial.state.value,
            "mask": trial.mask.key[:8],
            "macs": trial.cost.macs,
            "loss": None if evaluation is None else f"{evaluation.score.loss:.6g}",
            "seconds": f"{sum(step.seconds for step in trial.steps):.3g}",
            "duplicate_of": trial.duplicate_of,
            "error": trial.error,
        }
        known = {key: value for key, value in values.items() if value is not None}
        self.event("trial", logging.WARNING if failed else logging.INFO, **known)

    def close(self) -> None:
        """Closes the file."""
        self._handler.close()


@contextmanager
def unexpected_logged(folder: Path) -> Iterator[None]:
    """Writes into the log of a run, with where it came from, what is raised inside the block.

    Input that is at fault is no news of the run, and is left out.

    Args:
        folder: of the run; a preparation that fails gets one, with its log alone.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        with suppress(OSError, StorageError):  # the error itself matters more
            folder.mkdir(parents=True, exist_ok=True)
            log = RunLog(folder)
            lines = "".join(traceback.format_exception(error))
            log.event("error", logging.ERROR, error=one_line(error), traceback=lines)
            log.close()
        raise


@final
class _Handler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Drops what cannot be written: a full disk ends a search at its study, not here."""

    def close(self) -> None:
        try:
            super().close()
        except OSError:  # what was left to be written
            self.handleError(logging.makeLogRecord({}))


@final
class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return f"{time} {record.levelname} {record.getMessage()}"


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "=\n') else text
