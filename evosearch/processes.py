"""Processes: a fresh one, as a user starts it, and those that torchrun started together."""

import os
import subprocess
import sys

from evosearch.errors import EvosearchError, InputError


class ProcessError(EvosearchError):
    """A fresh process failed; the message is its last word."""


def shared_by() -> int:
    """Returns how many processes torchrun started for this command; 1 without torchrun.

    Programs that schedule jobs may set WORLD_SIZE and RANK as well.
    """
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first() -> bool:
    """Returns whether this is the process that writes and speaks for all of them."""
    return shared_by() == 1 or os.environ["RANK"] == "0"


def require_alone(command: str) -> None:
    """Checks that torchrun started no further process for a command that shares no training.

    Raises:
        InputError: it did.
    """
    if shared_by() > 1:
        raise InputError(
            f"{command}: {shared_by()} processes of torchrun would each do all of it; start one,"
            " and let --workers share what it measures"
        )


def run_fresh(*arguments: object, importing: bool) -> str:
    """Runs Python in a fresh process, and returns what it printed.

    It does not look for modules where it was started, or where its program lies: a file there may
    have the name of one of Python's own.

    Args:
        arguments: of Python, such as "-m" and a module.
        importing: whether it imports from where this process does, in the same order; otherwise
            from where packages are installed.

    Raises:
        ProcessError: it failed.
    """
    environment = dict(os.environ)
    if importing:
        environment["PYTHONPATH"] = os.pathsep.join(place or os.getcwd() for place in sys.path)
    done = subprocess.run(
        [sys.executable, "-P", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it ended without a reason"])[-1]
        raise ProcessError(reason)
    return done.stdout
