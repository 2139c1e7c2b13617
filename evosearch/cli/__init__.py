"""The command line: each command calls a function of `evosearch.api`, and prints what comes of it.

============  ==========================================================================
`__main__`    the same for `python -m evosearch.cli`
`app`         the app, where commands print, and the options of printing
`leaving`     the end of the process, without waiting for the garbage collector
`parameters`  the parameters of commands, made from those of the functions
`searching`   search, resume
`inspecting`  pareto, report, compare
`deploying`   cut, finetune, measure, export
`training`    train
`spaces`      inspect, profile, space new, criteria, recipes
============  ==========================================================================

Imported without torch: modules that need it are imported by the commands that use them.
"""

import sys
from typing import NoReturn, cast

import typer

from evosearch.cli.app import app
from evosearch.cli.leaving import leave
from evosearch.errors import EvosearchError, InputError
from evosearch.processes import is_first

# Importing them adds their commands, in the order that --help lists them.
# isort: off
import evosearch.cli.spaces
import evosearch.cli.training
import evosearch.cli.searching
import evosearch.cli.inspecting
import evosearch.cli.deploying  # noqa: F401
# isort: on

# Typer names no public base of its usage errors.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])


def program() -> NoReturn:
    """Runs the command line as all that its process is for; see `main`."""
    try:
        main()
    except SystemExit as ended:
        leave(ended.code)


def main() -> NoReturn:
    """Runs the command line: exit 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    try:
        # Gives the exit code where typer itself ends the command, as after --help or Ctrl-C.
        sys.exit(app(standalone_mode=False) or 0)
    except InputError as error:
        _fail(str(error), 2)
    except EvosearchError as error:
        _fail(str(error), 1)
    except UsageError as error:
        _fail(error.format_message(), 2)


def _fail(message: str, code: int) -> NoReturn:
    if is_first():
        typer.echo(f"evosearch: {' '.join(message.split())}", err=True)
    sys.exit(code)
