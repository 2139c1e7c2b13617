"""The commands that show what runs found."""

from pathlib import Path
from typing import Annotated, Any

import typer

from evosearch import api
from evosearch.api.fronts import is_measured
from evosearch.cli.app import JsonOption, app, messages, output, show
from evosearch.cli.parameters import command
from evosearch.errors import InputError
from evosearch.report.progress import shown


@command(app, api.pareto)
def pareto(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Refresh while it is searched.")
    ] = False,
    as_json: JsonOption = False,
    **given: Any,
) -> None:
    """Show the front of a run, finished or not, or its best plan for any budget."""
    if follow:
        _follow(given["run"], given["x"], given["at"], as_json=as_json)
    with shown(messages) as callbacks:
        view = api.pareto(**given, callbacks=callbacks)
    if not follow:
        show(view, as_json=as_json)
    _name_picture(given["plot"], as_json=as_json)


@command(app, api.write_report)
def report(**given: Any) -> None:
    """Write one HTML page with all that a run found; it needs no network to be opened."""
    api.write_report(**given)
    output.print(f"page: {given['html']}", soft_wrap=True)


@command(app, api.compare)
def compare(*, as_json: JsonOption = False, **given: Any) -> None:
    """Compare the fronts of several runs of one space and base network."""
    show(api.compare(**given), as_json=as_json)
    _name_picture(given["plot"], as_json=as_json)


def _follow(run: Path, x: str | None, at: str | None, *, as_json: bool) -> None:
    """Shows a front that refreshes until its search ends."""
    from evosearch.report.follow import follow

    if at is not None:
        raise InputError("--at shows one plan: leave --x, --plot and --follow out")
    if as_json:
        raise InputError("--follow shows a table that refreshes: leave --json out")
    if is_measured(x):
        raise InputError(f"--x {x} times networks, which a running search would disturb")
    follow(run, lambda: api.pareto(run, x=x).render(), output)


def _name_picture(path: Path | None, *, as_json: bool) -> None:
    if path is not None and not as_json:
        output.print(f"picture: {path}", soft_wrap=True)
