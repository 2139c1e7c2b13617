"""The app that commands are added to, where they print, and the options of printing."""

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from evosearch.report.views import View

app = typer.Typer(
    help="Channel selection for CNN pruning as combinatorial search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# A file or a pipe has no width; tables need about so much.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
output = Console(markup=False, highlight=False, width=_WIDTH)
messages = Console(stderr=True, markup=False, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def options(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress; a run keeps its log in run.log.")
    ] = False,
) -> None:
    """Channel selection for CNN pruning as combinatorial search."""
    messages.quiet = quiet


def show(view: "View", *, as_json: bool) -> None:
    """Prints what was found, for programs or for people."""
    if as_json:
        typer.echo(json.dumps(view.to_json(), indent=2))
    else:
        output.print(view.render())
