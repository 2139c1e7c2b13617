"""A journal of timings: an interrupted profile goes on where it stopped."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from evosearch.files import writing
from evosearch.study.timing import Timing


@final
class Journal:
    """A file of lines, each a key and what was timed under it."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; a line that a kill cut short is not."""
        self._path = path
        self._entries: dict[str, Any] = {}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            key, value = json.loads(line)
            self._entries[key] = value

    def timing(self, key: str, measure: Callable[[], Timing]) -> Timing:
        """Returns what was timed under a key; measures it where that is nothing yet.

        What is measured is on disk when this returns.

        Raises:
            StorageError: it cannot be written.
        """
        if key not in self._entries:
            value = asdict(measure())
            self._entries[key] = value
            with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, value]) + "\n")
        return Timing(**self._entries[key])

    def delete(self) -> None:
        """Removes the file: what it was for is done."""
        self._path.unlink(missing_ok=True)
