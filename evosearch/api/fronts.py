"""Fronts from Python: shown, compared, and written as a page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evosearch.api.parameters import PathLike, public
from evosearch.api.runs import load_run, objects_in, scope_of
from evosearch.errors import InputError, unknown_name
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.space.resources import RESOURCES, Resource, resource_of

if TYPE_CHECKING:
    from evosearch.report.compare import Comparison
    from evosearch.report.views import View


@public
def pareto(
    run: PathLike,
    *,
    x: str | None = None,
    plot: PathLike | None = None,
    at: str | None = None,
    evaluate: bool = False,
    callbacks: Callbacks = SILENT,
) -> "View":
    """Shows the front of a run, finished or not, or its best plan for any budget.

    Args:
        run: folder of a run.
        x: size axis: flops, params, or latency, which is measured (default what the budget
            limits).
        plot: write a picture (PNG).
        at: the best plan for any FLOPs or params: flops=37%.
        evaluate: measure that plan.
        callbacks: told what is being done.

    Returns:
        What there is to see: `to_json()` for programs, `render()` for people.

    Raises:
        InputError: the folder holds no run, or something that was given is at fault.
    """
    folder = Path(run)
    if at is not None or evaluate:
        if at is not None and (x is not None or plot is not None):
            raise InputError("--at shows one plan: leave --x, --plot and --follow out")
        from evosearch.report.views import PlanView

        opened = replace(load_run(folder), objects=objects_in(run))
        plan = opened.pick(at=at, evaluate=evaluate, callbacks=callbacks)
        return PlanView(study=opened.study, plan=plan)
    if is_measured(x):
        from evosearch.report.views import TimedFrontView
        from evosearch.run.timedfront import timed_front

        with scope_of(run):
            timed = timed_front(folder, callbacks.on_stage)
        view = TimedFrontView(study=load_run(folder).study, timed=timed)
        if plot is not None:
            view.plot(Path(plot))
        return view
    from evosearch.report.pareto import ParetoView

    front = ParetoView.read(folder, _axis(x, also=_options(exact=False)))
    if plot is not None:
        from evosearch.report.plot import plot_front

        plot_front(front.study, front.front, Path(plot), front.rivals)
    return front


@public
def compare(
    runs: Sequence[PathLike], *, x: str | None = None, plot: PathLike | None = None
) -> "Comparison":
    """Compares the fronts of several runs of one space and base network.

    Args:
        runs: folders of runs.
        x: size axis: flops or params (default what the budget limits).
        plot: write a picture (PNG).

    Raises:
        InputError: there are fewer than two, or they cannot be compared.
    """
    from evosearch.report.compare import Comparison

    comparison = Comparison.read([Path(run) for run in runs], _axis(x))
    if plot is not None:
        from evosearch.report.plot import plot_comparison

        plot_comparison(comparison.fronts, comparison.base, Path(plot))
    return comparison


@public
def write_report(run: PathLike, *, html: PathLike, x: str | None = None) -> None:
    """Writes one HTML page with all that a run found; it needs no network to be opened.

    Args:
        run: folder of a run.
        html: page to write; needs the extra 'report'.
        x: size axis: flops or params (default what the budget limits).

    Raises:
        InputError: the folder holds no run, plotly is not installed, or the page cannot be
            written.
    """
    from evosearch.report.page import write_page

    write_page(Path(run), Path(html), _axis(x))


def is_measured(x: str | None) -> bool:
    """Returns whether a size axis is one that has to be measured, as latency has."""
    return x in _options(exact=False)


def _axis(x: str | None, also: Sequence[str] = ()) -> Resource | None:
    """Returns the resource of a size axis; None is the one that the run minimises."""
    if x is None:
        return None
    if x not in _options(exact=True):
        raise unknown_name("--x", x, [*_options(exact=True), *also])
    return resource_of(x)


def _options(*, exact: bool) -> list[str]:
    return [resource.option for resource in RESOURCES.values() if resource.exact is exact]
