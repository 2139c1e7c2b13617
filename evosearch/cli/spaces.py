"""Commands on a search space and its base network."""

import json
from pathlib import Path
from typing import Annotated

import typer

from evosearch.cli.app import (
    BatchOption,
    JsonOption,
    RuntimeOption,
    SpaceArgument,
    app,
    messages,
    output,
)
from evosearch.errors import InputError
from evosearch.report.progress import epoch_lines, stages

spaces = typer.Typer(help="Space files.", no_args_is_help=True)
app.add_typer(spaces, name="space")


@app.command()
def inspect(space: SpaceArgument, as_json: JsonOption = False) -> None:
    """Channel groups, their proof, what is frozen and why, and what the network costs."""
    from evosearch.models.build import build_model
    from evosearch.report.inspection import discovery_json, print_discovery
    from evosearch.run.spacefile import load_space_file
    from evosearch.run.subject import discover_space

    file = load_space_file(space)
    with stages(messages) as on_stage:
        on_stage("tracing and proving")
        model = build_model(file.model.model_copy(update={"weights": None}), space.parent, seed=0)
        discovery = discover_space(file, model)
    if as_json:
        typer.echo(json.dumps(discovery_json(discovery), indent=2))
    else:
        print_discovery(discovery, output)
    if file.traced is not None and file.traced.get("digest") != discovery.space.digest:
        raise InputError(f"{space}: [traced] no longer holds: the model has the groups above now")


@app.command()
def profile(
    space: SpaceArgument,
    runtime: RuntimeOption = None,
    batch: BatchOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what latency depends on here, and how well it can be predicted; cached."""
    from evosearch.report.latency import profile_summary
    from evosearch.run.profiling import profile_space

    settings = {"runtime": runtime, "batch": batch, "threads": threads}
    try:
        with stages(messages) as on_stage:
            model, timed = profile_space(space, settings, device, on_stage)
    except KeyboardInterrupt:
        output.print("stopped: the same command goes on from the last timing")
        raise
    if as_json:
        typer.echo(json.dumps(model.to_json(), indent=2))
    else:
        output.print(profile_summary(model, timed))


@spaces.command("new")
def space_new(
    build: Annotated[str, typer.Argument(help="torchvision:resnet50 or module:callable.")],
    inputs: Annotated[list[str], typer.Option("--input", help="One image: 3x224x224.")],
    out: Annotated[Path, typer.Option(help="Space file to write.")],
) -> None:
    """Trace and prove a model, and write a space file for it to be reviewed."""
    from evosearch.run.newspace import write_space

    with stages(messages) as on_stage:
        on_stage("tracing and proving")
        space = write_space(out, build, inputs)
    output.print(
        f"{len(space.groups)} groups, {len(space.frozen)} frozen,"
        f" {space.prunable_share:.1%} of the MACs in layers with a prunable side"
    )
    output.print(f"space file: {out} (set its [data] before a search)", soft_wrap=True)


@app.command()
def train(space: SpaceArgument) -> None:
    """Train the base network where the space names no weights; the result is cached."""
    from evosearch.config import validated
    from evosearch.data.splits import load_search_data
    from evosearch.machine import torch_threads
    from evosearch.report.tables import percent
    from evosearch.run.config import SearchConfig
    from evosearch.run.spacefile import load_space_file
    from evosearch.run.subject import base_network, cached_weights
    from evosearch.tasks.config import load_task
    from evosearch.tasks.scoring import score

    file = load_space_file(space)
    if file.model.weights is not None:
        raise InputError(f"{space}: [model] weights are given, so there is nothing to train")
    data = load_search_data(file.data, space.parent)
    config = validated(SearchConfig, file.search, f"{space}: [search]")
    with torch_threads(config.threads), epoch_lines("training", messages) as on_epoch:
        model = base_network(file, space.parent, data, on_epoch)
    result = score(model, data.search, task=load_task(file.task, space.parent))
    output.print(
        f"search accuracy {percent(result.accuracy, result.accuracy_se)} on {result.images} images"
    )
    output.print(f"weights: {cached_weights(file, space.parent)}", soft_wrap=True)


@app.command()
def criteria() -> None:
    """List the importance criteria, what each needs and where it comes from."""
    from evosearch.report.criteria import criteria_table

    output.print(criteria_table())
