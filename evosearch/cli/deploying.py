"""The commands from a finished search to a network that is deployed."""

from typing import Any

from evosearch import api
from evosearch.cli.app import app, messages, output
from evosearch.cli.parameters import command
from evosearch.report.progress import shown


@command(app, api.cut)
def cut(**given: Any) -> None:
    """Cut a network without training it: one of a run, or that of a space without a search."""
    from evosearch.report.networks import cut_table

    with shown(messages) as callbacks:
        done = api.cut(**given, callbacks=callbacks)
    output.print(cut_table(done.base, done.plan))
    if done.artifact is None:
        output.print("not saved: --to DIR writes the artifact")
    else:
        output.print(f"artifact: {done.artifact.folder}", soft_wrap=True)


@command(app, api.finetune)
def finetune(**given: Any) -> None:
    """Distil one network of a run, or several side by side; measure on test once, and save."""
    from evosearch.report.finals import finals_lines, finals_table
    from evosearch.report.networks import networks_table
    from evosearch.run.finals import Decided
    from evosearch.run.replicas import replica
    from evosearch.study.study import Study

    try:
        with replica(given["run"]) as own, shown(messages, "distillation") as callbacks:
            done = api.finetune(**{**given, "run": own}, callbacks=callbacks)
    except KeyboardInterrupt:
        output.print("stopped: the same command goes on from the last whole epoch")
        raise
    if isinstance(done, Decided):
        output.print(finals_table(done.study, done.finals))
        for line in finals_lines(done.finals):
            output.print(line, soft_wrap=True)
        output.print(f"artifact: {done.artifact.folder}", soft_wrap=True)
        return
    output.print(networks_table(Study.open(given["run"]), done.networks))
    if done.within is not None:
        output.print(
            f"uniform and global plans are the largest of their kind within {done.within}"
        )
    if done.confirmed is not None:
        output.print(f"{done.networks[-1].name} {done.confirmed}")
    if done.distillation is not None and done.distillation.best_epoch == 0:
        output.print("distillation did not help: no epoch was better on the search split")
    output.print(f"artifact: {done.artifact.folder}", soft_wrap=True)


@command(app, api.measure_artifact)
def measure(**given: Any) -> None:
    """Measure time, and energy where it can be read, of an artifact's network; onto its card."""
    from evosearch.export.card import CARD_TEXT

    with shown(messages) as callbacks:
        done = api.measure_artifact(**given, callbacks=callbacks)
    for cost in done.costs:
        output.print(str(cost), soft_wrap=True)
    if done.no_energy is not None:
        output.print(f"no energy: {done.no_energy}", soft_wrap=True)
    output.print(f"card: {done.artifact.folder / CARD_TEXT}", soft_wrap=True)


@command(app, api.export_artifact)
def export(**given: Any) -> None:
    """Copy an artifact with a loader that needs torch and safetensors only, or convert it."""
    with shown(messages) as callbacks:
        done = api.export_artifact(**given, callbacks=callbacks)
    if done.difference is None:
        line = f"exported: {done.path} (load.py rebuilds the network)"
    elif done.largest is None:
        line = f"exported: {done.path} (largest difference of outputs {done.difference:.1e})"
    else:
        line = f"largest difference {done.difference:.1e}, largest output {done.largest:.1e}"
    output.print(line, soft_wrap=True)
    if done.quantized is not None:
        output.print(str(done.quantized), soft_wrap=True)
