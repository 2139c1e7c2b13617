"""Tables of columns: in a terminal, as JSON, and as the HTML page takes them; without torch.

A table is a list of columns over rows of one kind; `columns` has those of networks. A column that
says nothing of any row is left out of what people read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from rich import box
from rich.table import Table

Row = TypeVar("Row")


def _nothing(_: object) -> dict[str, Any]:
    return {}


@final
@dataclass(frozen=True, kw_only=True)
class Column(Generic[Row]):
    """One thing that is said of every row of a table.

    Attributes:
        header: its heading; a line break in it holds in a terminal alone.
        cell: the text of a row; "" where nothing is known.
        json: what the JSON of a row holds of it; the same keys for every row.
        html: the text of a row in the HTML page, where it is not that of a terminal; no markup.
    """

    header: str
    cell: Callable[[Row], str]
    json: Callable[[Row], dict[str, Any]] = _nothing
    html: Callable[[Row], str] | None = None


def terminal_table(columns: Sequence[Column[Row]], *sections: Sequence[Row]) -> Table:
    """Returns rows as a table, with a line between sections."""
    rows = [row for section in sections for row in section]
    shown = [column for column in columns if not rows or any(column.cell(row) for row in rows)]
    table = plain_table(*(column.header for column in shown))
    for section in sections:
        for row in section:
            table.add_row(*(column.cell(row) for column in shown))
        table.add_section()
    return table


def json_object(columns: Sequence[Column[Row]], row: Row) -> dict[str, Any]:
    """Returns what the columns say of a row, as one JSON object."""
    return {key: value for column in columns for key, value in column.json(row).items()}


def html_table(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> dict[str, Any]:
    """Returns what the HTML page draws a table from: its `heads`, and `rows` of cells."""
    cells = [html_cells(columns, row) for row in rows]
    shown = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    heads = html_heads(columns)
    return {"heads": [heads[i] for i in shown], "rows": [[r[i] for i in shown] for r in cells]}


def html_heads(columns: Sequence[Column[Row]]) -> list[str]:
    """Returns the headings as the HTML page has them."""
    return [column.header.replace("\n", " ") for column in columns]


def html_cells(columns: Sequence[Column[Row]], row: Row) -> list[str]:
    """Returns the texts of a row as the HTML page has them."""
    return [(column.html or column.cell)(row) for column in columns]


def plain_table(first: str, *names: str) -> Table:
    """Returns an empty table; all columns but the first are for numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table
