"""The lines that tell how something goes where there is no terminal: in a file or a pipe."""

import time
from collections.abc import Callable
from typing import final

from rich.console import Console

SECONDS = 10.0
"""Between two lines of one stage, at least."""


@final
class Lines:
    """Prints where each stage begins and ends, and in between how far it is, now and then."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes where to print, and what tells the time in seconds."""
        self._console, self._clock = console, clock
        self._began = clock()
        self._printed = self._began
        self._stage = ""
        self._pending = ""

    def tell(self, text: str, *, now: bool = False) -> None:
        """Takes what is being done, or how far that is.

        Args:
            text: the name of a stage, and behind a colon how far it is.
            now: whether it is printed at once, as the first of a stage is.
        """
        stage = text.partition(":")[0]
        if stage != self._stage:
            self.close()
            self._stage, now = stage, True
        self._pending = text
        if now or self._clock() - self._printed >= SECONDS:
            self.close()

    def close(self) -> None:
        """Prints what was told last."""
        if self._pending:
            self._printed = self._clock()
            elapsed = f"[{self._printed - self._began:.0f} s]"
            self._console.print(f"{elapsed:>7} {self._pending}", soft_wrap=True)
            self._pending = ""
