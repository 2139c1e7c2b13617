"""Results of benchmarks on disk: rows of JSON, the commit that they are of, and begun runs."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from evosearch.config import validated
from evosearch.run.config import SearchConfig
from evosearch.run.session import Session
from evosearch.run.spacefile import SpaceFile
from evosearch.space.budget import BudgetRequest

Row = TypeVar("Row")


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Returns the rows of a results file; none where there is no file."""
    if not path.exists():
        return []
    return [kind(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def append_row(path: Path, row: Any) -> None:
    """Appends a row, a dataclass, in one write, so that rows of several processes never mix."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{json.dumps(asdict(row))}\n".encode())
    finally:
        os.close(file)


def commit() -> str:
    """Returns the commit of this checkout, shortened."""
    git = ("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    return subprocess.run(git, capture_output=True, check=True, text=True).stdout.strip()


def opened_run(
    folder: Path,
    file: SpaceFile,
    space_folder: Path,
    request: BudgetRequest,
    *,
    evaluator: Mapping[str, Any],
    **search: Any,
) -> Session:
    """Returns a run, begun or gone on with.

    Args:
        folder: of the run.
        file: the space.
        space_folder: where that file lies.
        request: the budget.
        evaluator: what `[search.evaluator]` has besides what the space says.
        **search: likewise of `[search]`.
    """
    if folder.exists():
        return Session.resume(folder)
    own = {"evaluator": {**file.search.get("evaluator", {}), **evaluator}}
    return Session.create(
        folder,
        space_file=file,
        space_folder=space_folder,
        search=validated(SearchConfig, {**file.search, **search, **own}, "[search]"),
        request=request,
    )
