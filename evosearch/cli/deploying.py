"""Commands from a finished search to a network that is deployed."""

from pathlib import Path
from typing import Annotated

import typer

from evosearch.cli.app import RunArgument, app, messages, output
from evosearch.errors import InputError, unknown_name
from evosearch.report.progress import epoch_lines, stages


@app.command()
def finetune(
    run: RunArgument,
    pick: Annotated[
        str | None, typer.Option(help="knee, best, smallest or a trial's number.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Best within any FLOPs or params: flops=37%.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of distillation.")] = None,
) -> None:
    """Distil one network of a run, measure it on test once, and save it."""
    from evosearch.report.networks import networks_table
    from evosearch.run.finetuning import finetune as finetune_trial
    from evosearch.study.study import Study

    try:
        with stages(messages) as on_stage, epoch_lines("distillation", messages) as on_epoch:
            done = finetune_trial(
                run, pick=pick, at=at, epochs=epochs, on_stage=on_stage, on_epoch=on_epoch
            )
    except KeyboardInterrupt:
        output.print("stopped: the same command goes on from the last whole epoch")
        raise
    output.print(networks_table(Study.open(run), done.networks))
    if done.distillation.best_epoch == 0:
        output.print("distillation did not help: no epoch was better on the search split")
    output.print(f"artifact: {done.artifact.folder}", soft_wrap=True)


@app.command()
def export(
    artifact: Annotated[Path, typer.Argument(help="Folder of an artifact.", metavar="ARTIFACT")],
    to: Annotated[Path | None, typer.Option(help="New folder.")] = None,
    kind: Annotated[
        str, typer.Option("--format", help="safetensors, onnx or pt2.")
    ] = "safetensors",
    verify: Annotated[
        bool, typer.Option("--verify", help="Check an exported folder again; writes nothing.")
    ] = False,
) -> None:
    """Copy an artifact with a loader that needs torch and safetensors only, or convert it."""
    from evosearch.export.artifact import Artifact
    from evosearch.export.formats import FORMATS, export_network
    from evosearch.export.formats import verify as verify_export
    from evosearch.run.config import space_folder_of

    if verify:
        difference, largest = verify_export(artifact)
        output.print(f"largest difference {difference:.1e}, largest output {largest:.1e}")
        return
    if to is None:
        raise InputError("--to names the new folder to export to")
    if kind not in ("safetensors", *FORMATS):
        raise unknown_name("format", kind, ["safetensors", *FORMATS])
    if kind == "safetensors":
        Artifact.open(artifact).export(to)
        output.print(f"exported: {to} (load.py rebuilds the network)", soft_wrap=True)
        return
    with stages(messages) as on_stage:
        on_stage("export, and its check in a fresh process")
        opened = Artifact.open(artifact)
        difference = export_network(opened, kind, to, space_folder_of(opened.card))
    output.print(
        f"exported: {to / FORMATS[kind].file} (largest difference of outputs {difference:.1e})",
        soft_wrap=True,
    )
