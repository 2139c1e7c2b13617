"""The HTML page of a run: everything that it needs is inside, plotly too; without torch."""

import base64
import gzip
import html
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from evosearch.errors import InputError
from evosearch.files import write_text
from evosearch.report.pagedata import page_json
from evosearch.report.pareto import ParetoView
from evosearch.space.resources import Resource

ASSETS = files("evosearch.report") / "assets"


def write_page(folder: Path, path: Path, size: Resource | None = None) -> None:
    """Writes the page of a run.

    Args:
        folder: of the run.
        path: of the page, replaced where it exists.
        size: the size axis; None is the one that the study minimises.

    Raises:
        InputError: the folder holds no run, plotly is not installed, or the page cannot be
            written.
    """
    view = ParetoView.read(folder, size)
    page = render_page(view, _packed_plotly())
    try:
        write_text(path, page)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def render_page(view: ParetoView, plotly: str) -> str:
    """Returns the page.

    Args:
        view: the run.
        plotly: plotly.js, compressed by gzip, in base64.
    """
    parts = {
        "title": html.escape(f"evosearch: {view.folder.name}"),
        "style": _asset("page.css"),
        "pareto": _script_json(view.to_json()),
        "page": _script_json(page_json(view)),
        "plotly": plotly,
        "script": "\n".join(_asset(name) for name in ("charts.js", "page.js")),
    }
    page = _asset("page.html")
    # One pass over the template: what is put in is not looked through for further places.
    pieces = page.split("@@")
    return "".join(parts[p] if i % 2 else p for i, p in enumerate(pieces))


def _script_json(data: Any) -> str:
    """Returns JSON that cannot end the script element around it."""
    text = json.dumps(data, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def _packed_plotly() -> str:
    """Returns plotly.js at 41 % of its size, so that the page of a long search stays small."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise InputError('the HTML page needs plotly: pip install "evosearch[report]"') from error
    source: str = get_plotlyjs()
    return base64.b64encode(gzip.compress(source.encode(), compresslevel=9, mtime=0)).decode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
