"""The tables of latency: a profile, and a front by its measured latency; without torch."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from evosearch.latency.model import LatencyModel
from evosearch.report.columns import LATENCY, LATENCY_RATIO, NAME, measured_columns
from evosearch.report.plot import Picture, accuracy_bars, save_figure
from evosearch.report.tables import json_object, plain_table, terminal_table
from evosearch.space.cost import format_time
from evosearch.space.space import SearchSpace
from evosearch.study.study import Study

LOUD = 0.1
"""Noise over which a profile says little."""

if TYPE_CHECKING:
    from evosearch.run.timedfront import TimedFront


def profile_summary(model: LatencyModel, space: SearchSpace) -> RenderableType:
    """Returns where the base network's time goes, the steps, the noise and the errors."""
    steps = [f"{name} {step}" for name, step in model.steps.items()]
    return Group(
        str(model.conditions),
        _layers(model, space),
        f"base network: {format_time(model.base_picoseconds)} a batch, measured",
        "steps (channels that save time only together): "
        + (", ".join(steps) or "none; every channel that goes saves time"),
        f"noise: ±{model.noise:.1%} (median over networks of half the 95 % interval of a timing)"
        + ("; profile again on a quieter machine" if model.noise > LOUD else ""),
        f"fitted on {model.fitted} random compact networks; predictions for {model.validated}"
        f" others are off by {model.median_error:.1%} in the median, {model.worst_error:.1%} at"
        " worst",
    )


def _layers(model: LatencyModel, space: SearchSpace) -> Table:
    table = plain_table("layer", "predicted", "share")
    total = sum(term.evaluate(space.sizes) for term in model.terms)
    for term in model.terms:
        time = term.evaluate(space.sizes)
        table.add_row(term.name, format_time(time), f"{time / total:.1%}")
    return table


def timed_front_table(study: Study, timed: "TimedFront") -> RenderableType:
    """Returns the metric against measured latency, fastest first."""
    columns = (NAME, LATENCY, LATENCY_RATIO, *measured_columns(study))
    return Group(
        terminal_table(columns, timed.networks),
        f"measured in turn with the base network; {timed.conditions}",
    )


def timed_front_json(study: Study, timed: "TimedFront") -> dict[str, Any]:
    """Returns the same as JSON."""
    columns = (NAME, LATENCY, *measured_columns(study))
    return {
        "conditions": asdict(timed.conditions),
        "networks": [
            {**json_object(columns, network), "trial": network.trial} for network in timed.networks
        ],
    }


def plot_timed_front(timed: "TimedFront", path: Path) -> None:
    """Writes the metric against measured latency as a PNG file, with both error bars.

    Bars are 95 % intervals, of the metric and of the median ratio.
    """
    figure = Picture()
    axes = figure.add_subplot()
    groups = {"front": True, "beside the search": False}
    for label, searched in groups.items():
        chosen = [n for n in timed.networks if (n.trial is not None) == searched]
        timings = [n.timing for n in chosen if n.timing is not None]
        ratios = [100 * timing.ratio for timing in timings]
        bars = [
            [100 * (timing.ratio - timing.ratio_low) for timing in timings],
            [100 * (timing.ratio_high - timing.ratio) for timing in timings],
        ]
        if chosen:
            axes.errorbar(
                ratios,
                [100 * n.search.accuracy for n in chosen],
                xerr=bars,
                yerr=accuracy_bars([n.search for n in chosen]),
                fmt="o-" if searched else "s",
                capsize=2,
                elinewidth=0.8,
                label=label,
            )
    axes.set_title(str(timed.conditions), fontsize=9)
    axes.set_xlabel("measured latency of a batch, % of the base network's (95 % interval)")
    metric = timed.networks[0].search.metric
    axes.set_ylabel(f"{metric} on the search split, % (95 % interval)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    save_figure(figure, path)
