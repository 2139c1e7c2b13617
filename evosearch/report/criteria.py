"""The table of importance criteria: what each scores, needs, and where it comes from."""

from rich.table import Table

from evosearch.criteria import CRITERIA


def criteria_table() -> Table:
    """Returns one row for each criterion."""
    table = Table(title="Importance criteria: higher scores stay", title_justify="left")
    for column in ("criterion", "what it scores", "coupled channels", "needs", "between groups"):
        table.add_column(column)
    table.add_column("source", overflow="fold")
    for name, criterion in CRITERIA.items():
        scored = (criterion.__doc__ or "").splitlines()[0]
        table.add_row(
            name,
            scored.removesuffix("."),
            criterion.coupled,
            criterion.needs.value,
            criterion.normaliser.value,
            criterion.source,
        )
    return table
