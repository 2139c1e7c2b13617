"""Commands that show what a run found; none of them imports torch, but to measure."""

import json
from pathlib import Path
from typing import Annotated

import typer

from evosearch.cli.app import JsonOption, RunArgument, SizeOption, app, messages, output
from evosearch.errors import InputError, unknown_name
from evosearch.report.progress import stages
from evosearch.space.resources import RESOURCES, Resource


@app.command()
def pareto(
    run: RunArgument,
    x: Annotated[
        str | None, typer.Option("--x", help="flops, params, or latency, which is measured.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    at: Annotated[
        str | None, typer.Option(help="The best plan for any FLOPs or params: flops=37%.")
    ] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Measure that plan.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Refresh while it is searched.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the front of a run, finished or not, or its best plan for any budget."""
    from evosearch.report.pareto import ParetoView

    if at is not None:
        if x is not None or plot is not None or follow:
            raise InputError("--at shows one plan: leave --x, --plot and --follow out")
        _show_plan(run, at, evaluate, as_json)
        return
    if evaluate:
        raise InputError("--evaluate measures the plan of a budget: give --at flops=37% with it")
    if follow and as_json:
        raise InputError("--follow shows a table that refreshes: leave --json out")
    if x == "latency":
        _show_latency(run, plot, follow, as_json)
        return
    size = _size(x, "latency")
    if follow:
        from evosearch.report.follow import follow as follow_run

        follow_run(run, lambda: ParetoView.read(run, size).render(), output)
    view = ParetoView.read(run, size)
    if plot is not None:
        from evosearch.report.plot import plot_front

        plot_front(view.study, view.front, plot, view.rivals)
    if as_json:
        typer.echo(json.dumps(view.to_json(), indent=2))
        return
    if not follow:
        output.print(view.render())
    if plot is not None:
        output.print(f"picture: {plot}", soft_wrap=True)


@app.command()
def report(
    run: RunArgument,
    html: Annotated[Path, typer.Option(help="Page to write; needs the extra 'report'.")],
    x: SizeOption = None,
) -> None:
    """Write one HTML page with all that a run found; it needs no network to be opened."""
    from evosearch.report.page import write_page

    write_page(run, html, _size(x))
    output.print(f"page: {html}", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN RUN...")],
    x: SizeOption = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the fronts of several runs of one space and base network."""
    from evosearch.report.compare import Comparison

    comparison = Comparison.read(runs, _size(x))
    if plot is not None:
        from evosearch.report.plot import plot_comparison

        plot_comparison(comparison.fronts, comparison.base, plot)
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), indent=2))
        return
    output.print(comparison.render())
    if plot is not None:
        output.print(f"picture: {plot}", soft_wrap=True)


def _show_plan(run: Path, at: str, evaluate: bool, as_json: bool) -> None:
    from evosearch.report.networks import plan_json, plan_table
    from evosearch.run.planning import pick_plan
    from evosearch.study.study import Study

    study = Study.open(run)
    if evaluate:
        from evosearch.run.finetuning import measure_at

        with stages(messages) as on_stage:
            plan = measure_at(run, at, on_stage=on_stage)
    else:
        plan = pick_plan(run, study, None, at)
    if as_json:
        typer.echo(json.dumps(plan_json(study, plan), indent=2))
        return
    output.print(plan_table(study, plan))
    if plan.evaluation is None:
        output.print("predicted from the trials; --evaluate measures it")


def _show_latency(run: Path, plot: Path | None, follow: bool, as_json: bool) -> None:
    from evosearch.report.latency import plot_timed_front, timed_front_json, timed_front_table
    from evosearch.run.timedfront import timed_front
    from evosearch.study.study import Study

    if follow:
        raise InputError("--x latency times networks, which a running search would disturb")
    with stages(messages) as on_stage:
        timed = timed_front(run, on_stage)
    study = Study.open(run)
    if plot is not None:
        plot_timed_front(timed, plot)
    if as_json:
        typer.echo(json.dumps(timed_front_json(study, timed), indent=2))
        return
    output.print(timed_front_table(study, timed))
    if plot is not None:
        output.print(f"picture: {plot}", soft_wrap=True)


def _size(x: str | None, *others: str) -> Resource | None:
    axes = {"flops": RESOURCES["macs"], "params": RESOURCES["params"]}
    if x is not None and x not in axes:
        raise unknown_name("--x", x, [*axes, *others])
    return None if x is None else axes[x]
