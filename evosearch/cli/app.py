"""The app that commands are added to, where they print, and the options of printing."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from evosearch.processes import is_first
from evosearch.report.notebook import text_width

if TYPE_CHECKING:
    from evosearch.report.views import View

app = typer.Typer(
    help="Channel selection for CNN pruning as combinatorial search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
output = Console(markup=False, highlight=False, width=text_width())
messages = Console(stderr=True, markup=False, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def options(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress; a run keeps its log in run.log.")
    ] = False,
) -> None:
    """Channel selection for CNN pruning as combinatorial search."""
    messages.quiet = quiet or not is_first()
    output.quiet = not is_first()


def show(view: "View", *, as_json: bool) -> None:
    """Prints what was found, for programs or for people."""
    if as_json:
        typer.echo(json.dumps(view.to_json(), indent=2))
    else:
        output.print(view.render())
