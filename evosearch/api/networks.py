"""Networks from Python: cut to a budget, and fine-tuned."""

from pathlib import Path
from typing import TYPE_CHECKING

from evosearch.api.parameters import (
    Amount,
    CountOrNone,
    Finalists,
    Images,
    Model,
    PathLike,
    Sections,
    Splits,
    TaskOrName,
    option_name,
    public,
)
from evosearch.api.runs import scope_of
from evosearch.api.searching import given_settings
from evosearch.api.subjects import subject_of
from evosearch.errors import InputError
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.space.budget import BudgetRequest

if TYPE_CHECKING:
    from evosearch.run.cutting import Cut
    from evosearch.run.finals import Decided
    from evosearch.run.finetuning import Finetuned


@public
def cut(
    target: PathLike | None = None,
    *,
    model: Model = None,
    train: Images = None,
    test: Images = None,
    held_out: Splits = None,
    task: TaskOrName = None,
    sections: Sections = None,
    accuracy_drop: float | None = None,
    pick: str | int | None = None,
    at: str | None = None,
    to: PathLike | None = None,
    channels: str | None = None,
    anyway: bool = False,
    callbacks: Callbacks = SILENT,
    **budgets: Amount,
) -> "Cut":
    """Cuts a network without training it: one of a run, or that of a space without a search.

    Args:
        target: folder of a run, or a space file (TOML), which is cut by one allocation from the
            two-step errors.
        model: in place of a space file, as in `search`; then flops and params are meant as of one.
        train: with a model, as in `search`.
        test: with a model, as in `search`.
        held_out: with a model, as in `search`.
        task: with a model, as in `search`.
        sections: with a model, as in `search`.
        flops: of a space file: 50% or 40M, of one image; with --params both hold together.
        params: of a space file: 50% or 0.2M.
        latency: not here; it takes a search.
        accuracy_drop: not here; it takes a search.
        pick: of a run: knee, best, smallest or a trial's number (default as for finetune).
        at: of a run: the best within any FLOPs or params: flops=37%.
        to: new folder of the artifact (default none, and nothing is written).
        channels: of a space file: who chooses them: two_step (default), lasso (layer after layer
            on the network as cut so far) or coreset (drawn, and reweighted).
        anyway: of a space file: go on with a base network that guesses, or is far under its stated
            accuracy.
        callbacks: told what is being done.
        **budgets: those of the table of resources, as above.

    Raises:
        InputError: something that was given is at fault.
    """
    folder = None if to is None else Path(to)
    request = BudgetRequest.of(accuracy_drop=accuracy_drop, **budgets)
    if target is not None and Path(target).is_dir():
        path = Path(target)
        if not request.is_empty:
            raise InputError("a network of a run is named by --at flops=50% or --pick knee")
        if channels is not None:
            raise InputError(f"{path}: --channels is for a space file; a run has its channels")
        from evosearch.run.cutting import cut_run

        named = None if pick is None else str(pick)
        with scope_of(target):
            return cut_run(path, pick=named, at=at, to=folder, callbacks=callbacks)
    if pick is not None or at is not None:
        raise InputError(f"{target}: --pick and --at name networks of a run, which is a folder")
    _require_certain(request)
    from evosearch.run.channels import TWO_STEP
    from evosearch.run.cutting import cut_space

    images = {"train": train, "test": test, "held_out": held_out}
    subject = subject_of(target, model=model, **images, task=task, sections=sections)
    with subject.scope():
        return cut_space(
            subject.file,
            subject.folder,
            where=subject.where,
            request=request,
            to=folder,
            channels=TWO_STEP if channels is None else channels,
            anyway=anyway,
            callbacks=callbacks,
        )


@public
def finetune(
    run: PathLike,
    *,
    pick: str | int | None = None,
    at: str | None = None,
    epochs: CountOrNone = None,
    baselines: bool = False,
    latency: bool = False,
    finals: Finalists = None,
    callbacks: Callbacks = SILENT,
) -> "Finetuned | Decided":
    """Distils one network of a run, measures it on test once, and saves it.

    The finished network of a training under a budget (`train`) is trained further: by the base
    network where it began with that one's weights, else by itself as it was finished. With
    `[finetune] alpha = 0` the labels alone teach.

    What a kill cuts short goes on from its last epoch when it is called again.

    Args:
        run: folder of a run, of a search or of a training under a budget; in Python also the
            `Run`, which one made from objects has to be.
        pick: which one: knee, best, smallest or a trial's number (default the one that is
            certified, the smallest where the budget is an accuracy, or else the knee).
        at: the best within any FLOPs or params: flops=37%.
        epochs: of distillation (default 20, or as the space file of the run said); 0 saves the
            network as it was cut.
        baselines: distil the global plan without a search alike, beside it.
        latency: time it against the base network here, which takes seconds; a run with a latency
            budget does so in any case.
        finals: so many of the best plans near --at, the global one without a search among them,
            trained side by side; half go on after each round (default none: one plan alone).
        callbacks: told what is being done, and how the distillation goes.

    Returns:
        What came of the plan; or of the finals, where these were asked for.

    Raises:
        InputError: no such run or trial, or nothing fits the budget.
    """
    if finals is not None:
        of_one = {"pick": pick, "baselines": baselines or None, "latency": latency or None}
        for name in given_settings(of_one):
            raise InputError(
                f"{option_name(name)} is for one plan; --finals takes the best near --at, and"
                " `global` without a search"
            )
        from evosearch.run.finals import run_finals

        with scope_of(run):
            return run_finals(Path(run), count=finals, at=at, epochs=epochs, callbacks=callbacks)
    from evosearch.run.config import read_run_config

    named = None if pick is None else str(pick)
    if read_run_config(Path(run)).prune is not None:
        if at is not None or baselines:
            given = "--baselines" if at is None else f"--at {at}"
            raise InputError(f"{given}: {Path(run)} is a training under a budget, not a search")
        from evosearch.run.refining import finetune_finished

        with scope_of(run):
            return finetune_finished(
                Path(run), pick=named, epochs=epochs, latency=latency, callbacks=callbacks
            )
    from evosearch.run.finetuning import finetune as finetune_plan

    with scope_of(run):
        return finetune_plan(
            Path(run),
            pick=named,
            at=at,
            epochs=epochs,
            baselines=baselines,
            latency=latency,
            callbacks=callbacks,
        )


def _require_certain(request: BudgetRequest) -> None:
    """Refuses a budget that one cut cannot be made for."""
    measured = [f"--{name}" for name in request.amounts if name not in request.exact().amounts]
    if request.accuracy_drop is not None:
        measured.append("--accuracy-drop")
    if measured:
        raise InputError(
            f"{measured[0]} takes a search, which measures networks: evosearch search SPACE"
            f" {measured[0]} ..."
        )
    if request.is_empty:
        raise InputError("a cut of a space needs a budget: --flops 50%, --params 0.2M or both")
    if any(".." in text for text in request.amounts.values()):
        raise InputError("a cut is one network: give a budget such as 50%, without a range")
