"""A latency profile as people read it."""

from rich.console import Group, RenderableType
from rich.table import Table

from evosearch.cost import format_time
from evosearch.latencymodel import LatencyModel
from evosearch.report.table import plain_table
from evosearch.space import SearchSpace


def profile_summary(model: LatencyModel, space: SearchSpace) -> RenderableType:
    """Returns where the base network's time goes, the steps, the noise and the errors."""
    steps = [f"{name} {step}" for name, step in model.steps.items()]
    return Group(
        str(model.conditions),
        _layers(model, space),
        f"base network: {format_time(model.base_picoseconds)} a batch, measured",
        "steps (channels that save time only together): "
        + (", ".join(steps) or "none; every channel that goes saves time"),
        f"noise: ±{model.noise:.1%} (median over networks of half the 95 % interval of a timing)",
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
