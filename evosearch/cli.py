"""The command line. Modules that need torch are imported by the commands that use them."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from evosearch.cost import BudgetRequest
from evosearch.errors import EvosearchError, InputError, unknown_name
from evosearch.report.progress import epoch_lines, search_with_progress, stages
from evosearch.trial import Objective, TrialState

app = typer.Typer(
    help="Channel selection for CNN pruning as combinatorial search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
spaces = typer.Typer(help="Space files.", no_args_is_help=True)
app.add_typer(spaces, name="space")
# Typer names no public base of its usage errors.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
output = Console(markup=False, highlight=False)
messages = Console(stderr=True, markup=False, highlight=False)

SpaceArgument = Annotated[Path, typer.Argument(help="Space file (TOML).", metavar="SPACE")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")]
TrialsOption = Annotated[int | None, typer.Option(min=1, help="Trials in all, past ones too.")]
SecondsOption = Annotated[float | None, typer.Option(min=0, help="Wall time of this session.")]
FlopsOption = Annotated[str | None, typer.Option(help="50%, 30%..70% or 40M.")]
ParamsOption = Annotated[str | None, typer.Option(help="50%, 30%..70% or 0.2M.")]
DropOption = Annotated[
    float | None, typer.Option(help="Points of search accuracy that may be lost: fewest FLOPs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def inspect(space: SpaceArgument, as_json: JsonOption = False) -> None:
    """Channel groups, their proof, what is frozen and why, and what the network costs."""
    from evosearch.evaluation.base import discover_space
    from evosearch.evaluation.models import build_model
    from evosearch.evaluation.spacefile import load_space_file
    from evosearch.report.inspection import discovery_json, print_discovery

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


@spaces.command("new")
def space_new(
    build: Annotated[str, typer.Argument(help="torchvision:resnet50 or module:callable.")],
    inputs: Annotated[list[str], typer.Option("--input", help="One image: 3x224x224.")],
    out: Annotated[Path, typer.Option(help="Space file to write.")],
) -> None:
    """Trace and prove a model, and write a space file for it to be reviewed."""
    from evosearch.evaluation.newspace import write_space

    with stages(messages) as on_stage:
        on_stage("tracing and proving")
        space = write_space(out, build, inputs)
    output.print(
        f"{len(space.groups)} groups, {len(space.frozen)} frozen parts,"
        f" {space.prunable_share:.1%} of the MACs in layers with a prunable side"
    )
    output.print(f"space file: {out} (set its [data] before a search)", soft_wrap=True)


@app.command()
def train(space: SpaceArgument) -> None:
    """Train the base network where the space names no weights; the result is cached."""
    from evosearch.config import validated
    from evosearch.evaluation.base import base_network, cached_weights
    from evosearch.evaluation.data import load_search_data
    from evosearch.evaluation.scoring import score
    from evosearch.evaluation.spacefile import load_space_file
    from evosearch.evaluation.task import load_task
    from evosearch.preparation import torch_threads
    from evosearch.report.table import percent
    from evosearch.runconfig import SearchConfig

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
def search(
    space: SpaceArgument,
    flops: FlopsOption = None,
    params: ParamsOption = None,
    accuracy_drop: DropOption = None,
    strategy: Annotated[str | None, typer.Option(help="rates, genetic, layerwise, ...")] = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything that is drawn.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda.")] = None,
    baselines: Annotated[
        bool | None, typer.Option("--baselines", help="Search random, uniform, global beside.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
) -> None:
    """Search for the best channels to keep within a budget."""
    from evosearch.config import validated
    from evosearch.evaluation.spacefile import load_space_file
    from evosearch.run import Run
    from evosearch.runconfig import SearchConfig

    request = _request(flops, params, accuracy_drop)
    if request is None:
        raise InputError(
            "a search needs a budget: --flops 50%, --params 0.2M or --accuracy-drop 1.0"
        )
    file = load_space_file(space)
    given = {
        "strategy": strategy,
        "trials": trials,
        "seed": seed,
        "device": device,
        "baselines": baselines,
    }
    settings = {**file.search, **{key: v for key, v in given.items() if v is not None}}
    config = validated(SearchConfig, settings, f"{space}: [search]")
    folder = out or _next_folder(Path("runs"), space.stem)
    with (
        stages(messages) as on_stage,
        epoch_lines("training the base network", messages) as on_epoch,
    ):
        run = Run.create(
            folder,
            space_file=file,
            space_folder=space.parent,
            search=config,
            request=request,
            on_stage=on_stage,
            on_epoch=on_epoch,
        )
    search_with_progress(run, config.trials, seconds, output, messages)


@app.command()
def resume(
    run: RunArgument,
    flops: FlopsOption = None,
    params: ParamsOption = None,
    accuracy_drop: DropOption = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
) -> None:
    """Go on with a search that was stopped or killed, or with another budget."""
    from evosearch.run import Run

    request = _request(flops, params, accuracy_drop)
    with stages(messages) as on_stage:
        opened = Run.resume(run, request=request, on_stage=on_stage)
    total = trials or opened.prepared.config.search.trials
    search_with_progress(opened, total, seconds, output, messages)


@app.command()
def pareto(
    run: RunArgument,
    x: Annotated[str | None, typer.Option("--x", help="Size axis: flops or params.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG).")] = None,
    at: Annotated[
        str | None, typer.Option(help="The best plan for any budget: flops=37%.")
    ] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Measure that plan.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the front of a run, finished or not, or its best plan for any budget."""
    from evosearch.report.table import front_json, front_table, rivals_table
    from evosearch.report.trust import trust_advice, trust_json, trust_table
    from evosearch.rivals import rival_studies
    from evosearch.study import Study

    if at is not None:
        _show_plan(run, at, evaluate, as_json)
        return
    if evaluate:
        raise InputError("--evaluate measures the plan of a budget: give --at flops=37% with it")

    axes = {"flops": Objective.MACS, "params": Objective.PARAMS}
    if x is not None and x not in axes:
        raise unknown_name("--x", x, axes)
    study = Study.open(run)
    front = study.front(None if x is None else axes[x])
    rivals = rival_studies(run)
    if plot is not None:
        from evosearch.report.plot import plot_front

        plot_front(study, front, plot, rivals)
    if as_json:
        content = {**front_json(study, front, rivals), "ladder": trust_json(study)}
        typer.echo(json.dumps(content, indent=2))
        return
    output.print(front_table(study, front))
    if rivals:
        output.print(rivals_table(study, rivals))
    output.print(trust_table(study))
    for line in trust_advice(study):
        output.print(line)
    states = Counter(trial.state for trial in study.trials)
    output.print(
        f"{len(study.trials)} trials, {states[TrialState.PRUNED]} stopped below the last rung,"
        f" {states[TrialState.FAIL]} failed, {len(front.members)} in the front;"
        " accuracies are of the search split, which was selected on, so they are optimistic"
    )
    if plot is not None:
        output.print(f"picture: {plot}", soft_wrap=True)


@app.command()
def finetune(
    run: RunArgument,
    pick: Annotated[
        str | None, typer.Option(help="knee, best, smallest or a trial's number.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Best within any budget: flops=37%.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of distillation.")] = None,
) -> None:
    """Distil one network of a run, measure it on test once, and save it."""
    from evosearch.finetuning import finetune as finetune_trial
    from evosearch.report.table import networks_table

    with stages(messages) as on_stage, epoch_lines("distillation", messages) as on_epoch:
        done = finetune_trial(
            run, pick=pick, at=at, epochs=epochs, on_stage=on_stage, on_epoch=on_epoch
        )
    output.print(networks_table(done.artifact.card))
    output.print(f"artifact: {done.artifact.folder}", soft_wrap=True)


@app.command()
def export(
    artifact: Annotated[Path, typer.Argument(help="Folder of an artifact.", metavar="ARTIFACT")],
    to: Annotated[Path, typer.Option(help="New folder.")],
) -> None:
    """Copy an artifact, with a loader that needs torch and safetensors only."""
    from evosearch.artifact import Artifact

    Artifact.open(artifact).export(to)
    output.print(f"exported: {to} (load.py rebuilds the network)", soft_wrap=True)


def _show_plan(run: Path, at: str, evaluate: bool, as_json: bool) -> None:
    from evosearch.planning import pick_plan
    from evosearch.report.table import plan_json, plan_table
    from evosearch.study import Study

    study = Study.open(run)
    plan = pick_plan(run, study, None, at)
    if evaluate and plan.evaluation is None:
        from evosearch.finetuning import measure_plan

        with stages(messages) as on_stage:
            measure_plan(run, plan, on_stage=on_stage)
        plan = pick_plan(run, study, None, at)
    if as_json:
        typer.echo(json.dumps(plan_json(study, plan), indent=2))
        return
    output.print(plan_table(study, plan))
    if plan.evaluation is None:
        output.print("predicted from the trials; --evaluate measures it")


def _request(
    flops: str | None, params: str | None, accuracy_drop: float | None
) -> BudgetRequest | None:
    if flops is None and params is None and accuracy_drop is None:
        return None
    return BudgetRequest(flops=flops, params=params, accuracy_drop=accuracy_drop)


def _next_folder(parent: Path, stem: str) -> Path:
    numbers = (f"{stem}-{number}" for number in range(1, 10_000))
    return next(parent / name for name in numbers if not (parent / name).exists())


def main() -> None:
    """Runs the command line: exit 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    try:
        # Gives the exit code where typer itself ends the command, as after --help or Ctrl-C.
        sys.exit(app(standalone_mode=False) or 0)
    except InputError as error:
        _fail(str(error), 2)
    except EvosearchError as error:
        _fail(str(error), 1)
    except UsageError as error:
        _fail(error.format_message(), 2)


def _fail(message: str, code: int) -> None:
    typer.echo(f"evosearch: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
