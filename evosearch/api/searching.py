"""Searches from Python: started and resumed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evosearch.api.parameters import (
    Amount,
    Count,
    Images,
    Model,
    PathLike,
    Seconds,
    Sections,
    Seed,
    Splits,
    TaskOrName,
    public,
)
from evosearch.api.runs import Run, objects_in, scope_of
from evosearch.api.subjects import Given, subject_of
from evosearch.errors import InputError
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.folder import RunFolder
from evosearch.space.budget import BudgetRequest

if TYPE_CHECKING:
    from evosearch.run.session import Session


@public
def search(
    space: PathLike | None = None,
    *,
    model: Model = None,
    train: Images = None,
    test: Images = None,
    held_out: Splits = None,
    task: TaskOrName = None,
    sections: Sections = None,
    accuracy_drop: float | None = None,
    strategy: str | None = None,
    criterion: str | None = None,
    trials: Count = None,
    seconds: Seconds = None,
    seed: Seed = None,
    device: str | None = None,
    runtime: str | None = None,
    batch: Count = None,
    baselines: bool | None = None,
    workers: Count = None,
    cluster: str | None = None,
    out: PathLike | None = None,
    anyway: bool = False,
    callbacks: Callbacks = SILENT,
    **budgets: Amount,
) -> Run:
    """Searches for the best channels to keep within a budget.

    What is not given is as the space file says, or else its default. Objects may take the place of
    a space file, and a later process goes on with the same ones:

        run = evosearch.search(model=net, train=(images, labels), test=dataset, flops="50%")
        run = evosearch.load_run("runs/objects-1", model=net, train=(images, labels), test=dataset)
        run = evosearch.resume(run, trials=200)

    Args:
        space: space file (TOML).
        model: in place of a space file: a network with trained weights, which is copied.
        train: with a model: training images, as a dataset, arrays `(images, labels)`, or a
            DataLoader.
        test: with a model: test images, likewise.
        held_out: with a model: splits that are not taken out of the training images, such as
            `{"search": validation_set}`; also "calibration" and "confirmation".
        task: with a model: a `Task`, or the name of one (default classification).
        sections: with a model: what a space file says beside, as `{"data": {"search": 2000}}`;
            left out, a tenth of the training images calibrates and a fifth is searched on, at most
            1,000 and 5,000.
        accuracy_drop: points of search accuracy that may be lost, for the fewest FLOPs; or, with
            latency (100% is no limit), for the least of it.
        strategy: who proposes masks: rates (default), genetic, layerwise; or, with nothing to
            measure first, uniform, global, random, ...
        criterion: importance of channels (default two_step); evosearch criteria lists them.
        trials: evaluated masks in all (default 100).
        seconds: wall time of this session (default no limit).
        seed: of everything that is drawn (default 0).
        device: what networks run on: auto (default), cpu or cuda.
        runtime: for latency: eager (default), compile, exported, onnxruntime
            or onnxruntime-int8.
        batch: for latency: images in one run (default 1).
        baselines: search random, uniform and global plans beside.
        workers: processes that measure (default this one); the outcome is the same.
        cluster: dask scheduler (tcp://host:8786) whose workers measure.
        out: folder of the run, which must not exist (default a new one in runs).
        anyway: go on with a base network that guesses, or is far under its stated accuracy.
        callbacks: told how it goes, and asked whether to go on.
        **budgets: what the network may take of each resource: "50%" of the base network,
            "30%..70%" for a range, or an amount; those that are given together hold together.

    Raises:
        InputError: something that was given is at fault.
    """
    if cluster is not None:
        from evosearch.engine.parallel import require_cluster

        require_cluster(cluster)  # before anything else is begun
    request = BudgetRequest.of(accuracy_drop=accuracy_drop, **budgets)
    if request.is_empty:
        raise InputError(
            "a search needs a budget: --flops 50%, --params 0.2M, --latency 60% or"
            " --accuracy-drop 1.0"
        )
    images = {"train": train, "test": test, "held_out": held_out}
    subject = subject_of(space, model=model, **images, task=task, sections=sections)
    if workers is not None or cluster is not None:
        subject.file.require_names("--workers" if cluster is None else "--cluster")
    with subject.scope():
        session = _begun(
            subject,
            request,
            settings={
                "strategy": strategy,
                "criterion": criterion,
                "trials": trials,
                "seed": seed,
                "device": device,
                "baselines": baselines,
            },
            latency={"runtime": runtime, "batch": batch},
            out=None if out is None else Path(out),
            anyway=anyway,
            callbacks=callbacks,
        )
        ended = _searched(session, None, seconds, workers, cluster, callbacks)
    return replace(ended, objects=subject.objects)


@public
def resume(
    run: PathLike,
    *,
    accuracy_drop: float | None = None,
    trials: Count = None,
    seconds: Seconds = None,
    workers: Count = None,
    cluster: str | None = None,
    callbacks: Callbacks = SILENT,
    **budgets: Amount,
) -> Run:
    """Goes on with a run that was stopped or killed, or with a search for another budget.

    A training under a budget takes none of the options: it goes on as it began.

    Args:
        run: folder of a run; in Python also the `Run`, which one made from objects has to be.
        accuracy_drop: another budget from the next trial on: points of search accuracy that may
            be lost, for the fewest FLOPs or the least latency.
        trials: evaluated masks in all, earlier ones included (default as at first).
        seconds: wall time of this session (default no limit).
        workers: processes that measure (default this one); the outcome is the same.
        cluster: dask scheduler (tcp://host:8786) whose workers measure.
        callbacks: told how it goes, and asked whether to go on.
        **budgets: another budget from the next trial on; see `search`.

    Raises:
        InputError: the folder holds no run, or the budget is at fault.
    """
    from evosearch.run.config import read_run_config

    folder, request = Path(run), BudgetRequest.of(accuracy_drop=accuracy_drop, **budgets)
    config = read_run_config(folder)
    if config.prune is not None:
        options = {"trials": trials, "seconds": seconds, "workers": workers, "cluster": cluster}
        if given_settings(options) or not request.is_empty:
            raise InputError(
                f"{folder}: a training under a budget goes on as it began: leave the options out"
            )
        with scope_of(run):
            return replace(_gone_on_training(folder, callbacks), objects=objects_in(run))
    from evosearch.run.session import Session

    if workers is not None or cluster is not None:
        config.space.require_names("--workers" if cluster is None else "--cluster")
    asked = None if request.is_empty else request
    with scope_of(run):
        session = Session.resume(folder, request=asked, callbacks=callbacks)
        ended = _searched(session, trials, seconds, workers, cluster, callbacks)
    return replace(ended, objects=objects_in(run))


def _begun(
    subject: Given,
    request: BudgetRequest,
    *,
    settings: Mapping[str, Any],
    latency: Mapping[str, Any],
    out: Path | None,
    anyway: bool,
    callbacks: Callbacks,
) -> "Session":
    """Prepares a run that has no trials yet, and holds it.

    Args:
        subject: what is searched.
        request: the budget.
        settings: take the place of the space's `[search]`, where they are not None.
        latency: likewise, of its `[search.latency]`.
        out: folder of the run; None is a new one in `runs`.
        anyway: whether to go on with a base network that is not what it should be.
        callbacks: told what is being done.
    """
    from evosearch.config import validated
    from evosearch.run.config import SearchConfig
    from evosearch.run.session import Session

    file = subject.file
    given = {**file.search, **given_settings(settings)}
    if given_settings(latency):
        given["latency"] = {**file.search.get("latency", {}), **given_settings(latency)}
    return Session.create(
        out or next_folder(Path("runs"), subject.name),
        space_file=file,
        space_folder=subject.folder,
        search=validated(SearchConfig, given, f"{subject.where}: [search]"),
        request=request,
        anyway=anyway,
        callbacks=callbacks,
    )


def _searched(
    session: "Session",
    trials: int | None,
    seconds: float | None,
    workers: int | None,
    cluster: str | None,
    callbacks: Callbacks,
) -> Run:
    from evosearch.engine.loop import Limits

    limits = Limits(trials=trials or session.prepared.config.search.trials, seconds=seconds)
    ended = session.run(limits, workers=workers, cluster=cluster, callbacks=callbacks)
    return Run(folder=session.folder, study=session.study, ended=ended)


def _gone_on_training(folder: Path, callbacks: Callbacks) -> Run:
    from evosearch.run.training import resume_training
    from evosearch.study.study import Study

    ended = resume_training(folder, callbacks)
    return Run(folder=folder, study=Study.open(folder), ended=ended)


def given_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def next_folder(parent: Path, stem: str) -> Path:
    """Returns the first folder "STEM-N" that is not there."""
    numbers = (f"{stem}-{number}" for number in range(1, 10_000))
    return next(parent / name for name in numbers if RunFolder(parent / name).is_free)
