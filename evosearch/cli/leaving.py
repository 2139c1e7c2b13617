"""The end of a command's process: its work finished, its memory left to the system."""

import atexit
import os
import sys
import threading
from typing import NoReturn

import typer


def leave(code: object) -> NoReturn:
    """Ends this process at once, as `sys.exit` would in the end.

    Threads are waited for, exit handlers run and output is flushed, as multiprocessing does it in
    its children. What is left out is taking apart every module and object, one after the other:
    torch and what it imports are hundreds of thousands of them.

    Args:
        code: of a SystemExit: a number, None for 0, or what is printed as the reason of exit 1.
    """
    if not isinstance(code, int | None):
        typer.echo(code, err=True)
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except (KeyboardInterrupt, OSError):  # nobody waits, or nobody reads
        code = code or 1
    os._exit(code or 0)
