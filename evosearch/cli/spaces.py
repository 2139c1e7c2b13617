"""The commands on a search space, and the lists of criteria and recipes."""

from typing import Any

import typer

from evosearch import api
from evosearch.cli.app import JsonOption, app, messages, output, show
from evosearch.cli.parameters import command
from evosearch.report.progress import shown

spaces = typer.Typer(help="Space files: `space new` writes one.", no_args_is_help=True)
app.add_typer(spaces, name="space")


@command(app, api.inspect)
def inspect(*, as_json: JsonOption = False, **given: Any) -> None:
    """Channel groups, their proof, what is frozen and why, and what the network costs."""
    with shown(messages) as callbacks:
        found = api.inspect(**given, callbacks=callbacks)
    show(found, as_json=as_json)
    found.require_as_traced()


@command(app, api.profile)
def profile(*, as_json: JsonOption = False, **given: Any) -> None:
    """Measure what latency depends on here, and how well it can be predicted; cached.

    What is not given is as the space file says, or else its default.
    """
    try:
        with shown(messages) as callbacks:
            found = api.profile(**given, callbacks=callbacks)
    except KeyboardInterrupt:
        output.print("stopped: the same command goes on from the last timing")
        raise
    show(found, as_json=as_json)


@command(spaces, api.new_space, "new")
def space_new(**given: Any) -> None:
    """Trace and prove a model, and write a space file for it to be reviewed."""
    with shown(messages) as callbacks:
        space = api.new_space(**given, callbacks=callbacks)
    output.print(
        f"{len(space.groups)} groups, {len(space.frozen)} frozen,"
        f" {space.prunable_share:.1%} of the MACs in layers with a prunable side"
    )
    out = given["out"]
    output.print(f"space file: {out} (set its [data] before a search)", soft_wrap=True)


@command(app, api.list_criteria)
def criteria() -> None:
    """List the importance criteria, what each needs and where it comes from."""
    from evosearch.report.criteria import criteria_table

    output.print(criteria_table())


@command(app, api.list_recipes)
def recipes() -> None:
    """List the recipes for training under a budget, what each sets and where it comes from."""
    from evosearch.report.recipes import recipes_table

    output.print(recipes_table())
