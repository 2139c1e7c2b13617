"""Commands that search."""

from pathlib import Path
from typing import Annotated

import typer

from evosearch.api import begin
from evosearch.cli.app import (
    BatchOption,
    ClusterOption,
    DropOption,
    FlopsOption,
    LatencyOption,
    ParamsOption,
    RunArgument,
    RuntimeOption,
    SecondsOption,
    SpaceArgument,
    TrialsOption,
    WorkersOption,
    app,
    budget_request,
    messages,
    output,
)
from evosearch.engine.parallel import require_cluster
from evosearch.report.progress import epoch_lines, search_with_progress, stages


@app.command()
def search(
    space: SpaceArgument,
    flops: FlopsOption = None,
    params: ParamsOption = None,
    latency: LatencyOption = None,
    accuracy_drop: DropOption = None,
    strategy: Annotated[str | None, typer.Option(help="rates, genetic, layerwise, ...")] = None,
    criterion: Annotated[
        str | None, typer.Option(help="Importance of channels; evosearch criteria lists them.")
    ] = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything that is drawn.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda.")] = None,
    runtime: RuntimeOption = None,
    batch: BatchOption = None,
    baselines: Annotated[
        bool | None, typer.Option("--baselines", help="Search random, uniform, global beside.")
    ] = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
) -> None:
    """Search for the best channels to keep within a budget."""
    if cluster is not None:
        require_cluster(cluster)
    with (
        stages(messages) as on_stage,
        epoch_lines("training the base network", messages) as on_epoch,
    ):
        run = begin(
            space,
            budget_request(flops, params, latency, accuracy_drop),
            settings={
                "strategy": strategy,
                "criterion": criterion,
                "trials": trials,
                "seed": seed,
                "device": device,
                "baselines": baselines,
                "latency": {"runtime": runtime, "batch": batch},
            },
            out=out,
            on_stage=on_stage,
            on_epoch=on_epoch,
        )
    total = run.prepared.config.search.trials
    search_with_progress(run, total, seconds, output, messages, workers, cluster)


@app.command()
def resume(
    run: RunArgument,
    flops: FlopsOption = None,
    params: ParamsOption = None,
    latency: LatencyOption = None,
    accuracy_drop: DropOption = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Go on with a search that was stopped or killed, or with another budget."""
    from evosearch.run.session import Run

    request = budget_request(flops, params, latency, accuracy_drop)
    with stages(messages) as on_stage:
        opened = Run.resume(run, request=request, on_stage=on_stage)
    total = trials or opened.prepared.config.search.trials
    search_with_progress(opened, total, seconds, output, messages, workers, cluster)
