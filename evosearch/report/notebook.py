"""Tables at a Python prompt and in a notebook: as text, and in HTML; without torch."""

import os
import sys
from collections.abc import Iterable
from html import escape
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table

_WIDTH = 120
"""Columns of text where nothing says how wide it may be; tables need about so much."""


def text_width() -> int | None:
    """Returns how wide text may be; None is as wide as the terminal."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH


def as_text(part: RenderableType) -> str:
    """Returns tables and lines as text."""
    file = StringIO()
    Console(file=file, markup=False, highlight=False, width=text_width()).print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def as_html(part: RenderableType) -> str:
    """Returns tables and lines in HTML."""
    if isinstance(part, Group):
        return "\n".join(map(as_html, part.renderables))
    if isinstance(part, Table):
        return _table(part)
    return f"<p>{_escaped(part)}</p>"


def _table(table: Table) -> str:
    aligned = [f' style="text-align: {column.justify}"' for column in table.columns]
    heads = [column.header for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [_row("th", aligned, heads), *(_row("td", aligned, row) for row in rows)]
    title = f"<caption>{_escaped(table.title)}</caption>" if table.title else ""
    return "\n".join([f"<table>{title}", *lines, "</table>"])


def _row(tag: str, aligned: list[str], cells: Iterable[RenderableType]) -> str:
    pairs = zip(aligned, cells, strict=True)
    inner = (f"<{tag}{style}>{_escaped(text)}</{tag}>" for style, text in pairs)
    return f"<tr>{''.join(inner)}</tr>"


def _escaped(text: RenderableType) -> str:
    return escape(str(text)).replace("\n", "<br>")
