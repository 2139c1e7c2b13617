"""evosearch from Python: start a search, go on with one, read one, pick a network.

Nothing here imports torch before a function that needs it is called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from evosearch.errors import InputError
from evosearch.report.trials import trial_rows
from evosearch.run.planning import pick_plan
from evosearch.run.rivals import rival_studies
from evosearch.space.budget import BudgetRequest
from evosearch.study.front import ParetoFront
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Trial

if TYPE_CHECKING:
    from evosearch.export.artifact import Artifact
    from evosearch.run.finetuning import Finetuned
    from evosearch.run.session import Run as Search
    from evosearch.training.trainer import OnEpoch


@final
@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on disk, finished or not, as it was when it was read.

    Attributes:
        folder: where it lies.
        study: its trials and what they are about.
    """

    folder: Path
    study: Study

    @property
    def front(self) -> ParetoFront:
        """The Pareto front of loss against size: `members`, `knee`, `best`, `smallest`."""
        return self.study.front()

    @property
    def baselines(self) -> dict[str, Study]:
        """The studies of the baselines that were searched beside, by name."""
        return rival_studies(self.folder)

    def pick(self, pick: str | int | None = None, *, at: str | None = None) -> NamedNetwork:
        """Returns one network of the run.

        Args:
            pick: "knee", "best", "smallest" or a trial's number; None for the trial that was
                certified, or the smallest where the budget is an accuracy, or else the knee.
            at: a budget such as "flops=37%", also one that was never searched.

        Raises:
            InputError: there is none.
        """
        return pick_plan(self.folder, self.study, None if pick is None else str(pick), at)

    def rows(self) -> list[dict[str, Any]]:
        """Returns a flat dict for every trial, as `pandas.DataFrame` takes them.

        FLOPs and params are for one image, a predicted latency is of one batch; accuracies and
        ratios are shares; losses are in nats.
        """
        return trial_rows(self.study)


def load_run(folder: str | Path) -> Run:
    """Reads a run, also while it is being searched.

    Raises:
        InputError: the folder holds no run.
    """
    return Run(folder=Path(folder), study=Study.open(Path(folder)))


def load_artifact(folder: str | Path) -> "Artifact":
    """Opens a fine-tuned network; its `load(build_model)` gives the `torch.nn.Module`.

    Raises:
        InputError: the folder holds none.
    """
    from evosearch.export.artifact import Artifact

    return Artifact.open(Path(folder))


def search(
    space: str | Path,
    *,
    flops: str | None = None,
    params: str | None = None,
    latency: str | None = None,
    conditions: Mapping[str, Any] | None = None,
    accuracy_drop: float | None = None,
    strategy: str | None = None,
    criterion: str | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    baselines: bool | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Run:
    """Searches for the best channels to keep within a budget; what is None is the space's.

    Args:
        space: the space file.
        flops: of one image: "50%" of the base network, "40M", or a range "30%..70%".
        params: likewise; budgets that are given together hold together.
        latency: of one batch on this device: "60%" of the base network's, or "3.5ms"; the winner
            is measured.
        conditions: of that: `runtime`, `batch` and `threads`, in place of [search.latency].
        accuracy_drop: points of search accuracy that may be lost; the FLOPs are minimised then.
        strategy: who proposes masks.
        criterion: importance of channels; also one of your own in `CRITERIA`.
        trials: evaluated masks in all.
        seconds: wall time; None is no limit.
        seed: of everything that is drawn.
        device: "cpu", "cuda" or "auto".
        baselines: whether random, uniform and global plans are searched beside.
        workers: processes that measure; None is this one.
        out: folder of the run, which must not exist; None is a new one in `runs`.
        on_trial: called after every trial of the search.

    Raises:
        InputError: something that was given is at fault.
    """
    settings = {
        "strategy": strategy,
        "criterion": criterion,
        "trials": trials,
        "seed": seed,
        "device": device,
        "baselines": baselines,
        "latency": conditions or {},
    }
    request = BudgetRequest.of(
        flops=flops, params=params, latency=latency, accuracy_drop=accuracy_drop
    )
    begun = begin(Path(space), request, settings=settings, out=None if out is None else Path(out))
    return _searched(begun, begun.prepared.config.search.trials, seconds, workers, on_trial)


def resume(
    folder: str | Path,
    *,
    flops: str | None = None,
    params: str | None = None,
    latency: str | None = None,
    accuracy_drop: float | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Run:
    """Goes on with a search that was stopped or killed, or with another budget; see `search`.

    Args:
        folder: of the run.
        flops: with the other three, another budget from the next trial on.
        params: see `flops`.
        latency: see `flops`.
        accuracy_drop: see `flops`.
        trials: evaluated masks in all, earlier ones included; None is the run's own.
        seconds: wall time of this session; None is no limit.
        workers: processes that measure; None is this one.
        on_trial: called after every trial of the search.

    Raises:
        InputError: the folder holds no run, or the budget is at fault.
    """
    from evosearch.run.session import Run as Search

    request = BudgetRequest.of(
        flops=flops, params=params, latency=latency, accuracy_drop=accuracy_drop
    )
    opened = Search.resume(Path(folder), request=request if _asks(request) else None)
    total = trials or opened.prepared.config.search.trials
    return _searched(opened, total, seconds, workers, on_trial)


def finetune(
    folder: str | Path,
    *,
    pick: str | int | None = None,
    at: str | None = None,
    epochs: int | None = None,
) -> "Finetuned":
    """Distils one network of a run, measures it on test once, and saves it.

    Args:
        folder: of the run.
        pick: see `Run.pick`.
        at: see `Run.pick`.
        epochs: of distillation; None is the space's.

    Raises:
        InputError: no such run or trial, or nothing fits the budget.
    """
    from evosearch.run.finetuning import finetune as finetune_plan

    named = None if pick is None else str(pick)
    return finetune_plan(Path(folder), pick=named, at=at, epochs=epochs)


def begin(
    space: Path,
    request: BudgetRequest | None,
    *,
    settings: Mapping[str, Any],
    out: Path | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
    on_epoch: "OnEpoch | None" = None,
) -> "Search":
    """Prepares a run that has no trials yet, and holds it for this process.

    Args:
        space: the space file.
        request: the budget.
        settings: take the place of the space's `[search]`, where they are not None.
        out: folder of the run; None is a new one in `runs`.
        on_stage: told what is being done.
        on_epoch: progress of base training.

    Raises:
        InputError: something that was given is at fault.
    """
    from evosearch.config import validated
    from evosearch.run.config import SearchConfig
    from evosearch.run.session import Run as Search
    from evosearch.run.spacefile import load_space_file

    if request is None or not _asks(request):
        raise InputError(
            "a search needs a budget: --flops 50%, --params 0.2M, --latency 60% or"
            " --accuracy-drop 1.0"
        )
    file = load_space_file(space)
    given = {name: value for name, value in settings.items() if value is not None}
    conditions = {name: x for name, x in given.pop("latency", {}).items() if x is not None}
    if conditions:
        given["latency"] = {**file.search.get("latency", {}), **conditions}
    return Search.create(
        out or _next_folder(Path("runs"), space.stem),
        space_file=file,
        space_folder=space.parent,
        search=validated(SearchConfig, {**file.search, **given}, f"{space}: [search]"),
        request=request,
        on_stage=on_stage,
        on_epoch=on_epoch,
    )


def _searched(
    search: "Search",
    trials: int,
    seconds: float | None,
    workers: int | None,
    on_trial: Callable[[Trial], None],
) -> Run:
    from evosearch.engine.loop import Limits, Outcome
    from evosearch.run.baselines import search_baselines

    try:
        if workers is not None:
            search.use_workers(workers)
        outcome = search.search(Limits(trials=trials, seconds=seconds), on_trial=on_trial)
        if outcome is Outcome.TRIALS and search.prepared.config.search.baselines:
            search_baselines(search)
        search.certify()
    finally:
        search.close()
    return load_run(search.folder)


def _asks(request: BudgetRequest) -> bool:
    return not request.is_empty


def _next_folder(parent: Path, stem: str) -> Path:
    numbers = (f"{stem}-{number}" for number in range(1, 10_000))
    return next(parent / name for name in numbers if not (parent / name).exists())
