"""One plan of a run, and the networks of its artifact, as tables and as JSON."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from evosearch.report.table import (
    measure_cells,
    measures_json,
    percent,
    plain_table,
    size_cell,
    sizes_json,
)
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study


def plan_table(study: Study, plan: NamedNetwork) -> Table:
    """Returns one plan as a table; what is predicted is said to be."""
    base = study.header.base_cost
    if plan.evaluation is not None:
        table = plain_table("network", "FLOPs", "params", "search loss", "search accuracy, %")
        table.add_row(plan.name, *measure_cells(plan.cost, plan.search, base))
        return table
    table = plain_table("network", "FLOPs", "params", "search loss, predicted")
    ratios = plan.cost.relative_to(base)
    table.add_row(
        plan.name,
        size_cell(plan.cost.flops, ratios["macs"]),
        size_cell(plan.cost.params, ratios["params"]),
        "unknown" if plan.prediction is None else f"{plan.prediction.loss:.3f}",
    )
    return table


def plan_json(study: Study, plan: NamedNetwork) -> dict[str, Any]:
    """Returns one plan as JSON."""
    base = study.header.base_cost
    measures = (
        sizes_json(plan.cost, base)
        if plan.evaluation is None
        else measures_json(plan.cost, plan.search, base)
    )
    return {
        "plan": plan.name,
        "measured": plan.evaluation is not None,
        "predicted_loss": None if plan.prediction is None else plan.prediction.loss,
        **measures,
        "widths": plan.mask.widths,
    }


def networks_table(card: Mapping[str, Any]) -> Table:
    """Returns the named networks of an artifact's card, each measured once on test."""
    table = plain_table("network", "FLOPs", "params", "search\naccuracy, %", "test\naccuracy, %")
    for entry in card["networks"]:
        sizes = ("flops", "macs"), ("params", "params")
        table.add_row(
            entry["name"],
            *(size_cell(entry[count], entry["ratios"][ratio]) for count, ratio in sizes),
            *(
                percent(entry[split]["accuracy"], entry[split]["accuracy_se"])
                for split in ("search", "test")
            ),
        )
    return table
