"""The table of recipes for training under a budget: what each does, sets and costs; its source."""

import json
from typing import Any

from rich.table import Table

from evosearch.training.recipes import RECIPES


def recipes_table() -> Table:
    """Returns one row for each recipe."""
    table = Table(title="Recipes: evosearch train SPACE --flops 50% --recipe NAME")
    table.title_justify = "left"
    for column in ("recipe", "what it does", "[prune]", "what it costs"):
        table.add_column(column)
    table.add_column("source", overflow="fold")
    for name, recipe in RECIPES.items():
        settings = ", ".join(f"{key} = {_toml(value)}" for key, value in recipe.settings.items())
        table.add_row(name, recipe.about, settings, recipe.costs, recipe.source)
    return table


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(own)}' for key, own in value.items())} }}"
    return json.dumps(value)
