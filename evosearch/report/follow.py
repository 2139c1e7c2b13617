"""A view of a run that refreshes itself for as long as somebody searches."""

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from evosearch.run.folder import RunFolder

SECONDS = 1.0
"""Between two looks at the study."""


def follow(folder: Path, render: Callable[[], RenderableType], console: Console) -> None:
    """Shows a run until no process holds it any more, or Ctrl-C; the last view stays.

    Args:
        folder: of the run.
        render: reads it and gives what to show.
        console: where to.
    """
    seen = -1
    with Live(render(), console=console, auto_refresh=False) as live:
        try:
            while True:
                searched = is_held(folder)
                size = RunFolder(folder).study.stat().st_size
                if size != seen:
                    live.update(render(), refresh=True)
                    seen = size
                if not searched:
                    return
                time.sleep(SECONDS)
        except KeyboardInterrupt:
            return


def is_held(folder: Path) -> bool:
    """Returns whether a process holds the lock of a run."""
    try:
        with RunFolder(folder).lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
