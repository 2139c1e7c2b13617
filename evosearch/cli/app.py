"""What the commands share: the app, where they print to, and their options."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evosearch.space.budget import BudgetRequest

app = typer.Typer(
    help="Channel selection for CNN pruning as combinatorial search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# A file or a pipe has no width; tables need about so much.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
output = Console(markup=False, highlight=False, width=_WIDTH)
messages = Console(stderr=True, markup=False, highlight=False)

SpaceArgument = Annotated[Path, typer.Argument(help="Space file (TOML).", metavar="SPACE")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")]
TrialsOption = Annotated[int | None, typer.Option(min=1, help="Trials in all, past ones too.")]
SecondsOption = Annotated[float | None, typer.Option(min=0, help="Wall time of this session.")]
FlopsOption = Annotated[str | None, typer.Option(help="50%, 30%..70% or 40M.")]
ParamsOption = Annotated[str | None, typer.Option(help="50%, 30%..70% or 0.2M.")]
LatencyOption = Annotated[
    str | None, typer.Option(help="60% or 3.5ms of one batch, measured on this device.")
]
DropOption = Annotated[
    float | None, typer.Option(help="Points of search accuracy that may be lost: fewest FLOPs.")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that measure; the outcome is the same.")
]
ClusterOption = Annotated[
    str | None, typer.Option(help="Dask scheduler (tcp://host:8786) whose workers measure.")
]
RuntimeOption = Annotated[
    str | None, typer.Option(help="eager, compile, exported or onnxruntime.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Images in one run, for latency.")]
SizeOption = Annotated[str | None, typer.Option("--x", help="Size axis: flops or params.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def options(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress; a run keeps its log in run.log.")
    ] = False,
) -> None:
    """Channel selection for CNN pruning as combinatorial search."""
    messages.quiet = quiet


def budget_request(
    flops: str | None, params: str | None, latency: str | None, accuracy_drop: float | None
) -> BudgetRequest | None:
    """Returns the budget that the options ask for; None where they ask for none."""
    request = BudgetRequest.of(
        flops=flops, params=params, latency=latency, accuracy_drop=accuracy_drop
    )
    return None if request.is_empty else request
