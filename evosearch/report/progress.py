"""What the command line shows while something takes its time."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evosearch.trial import Trial

if TYPE_CHECKING:
    from evosearch.evaluation.training import EpochRecord
    from evosearch.run import Run


def search_with_progress(
    run: "Run", trials: int, seconds: float | None, output: Console, messages: Console
) -> None:
    """Searches with a progress bar; the first Ctrl-C stops after the current evaluation.

    Args:
        run: created or resumed; closed afterwards.
        trials: of the study in all.
        seconds: wall time of this session; None is no limit.
        output: for what came of it.
        messages: for progress.

    Raises:
        KeyboardInterrupt: the search was stopped; the run is whole and says how to go on.
    """
    from evosearch.baselining import search_baselines
    from evosearch.run import Limits, Outcome

    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        messages.print("stopping after this evaluation; press Ctrl-C again to leave at once")

    columns = (
        TextColumn("search"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    before = signal.signal(signal.SIGINT, stop)
    try:
        with Progress(*columns, console=messages, transient=True) as progress:
            task = progress.add_task("", total=trials, completed=len(run.study.trials))

            def on_trial(trial: Trial) -> None:
                progress.update(task, completed=trial.number + 1, description=_summary(run))

            outcome = run.search(
                Limits(trials=trials, seconds=seconds),
                on_trial=on_trial,
                should_stop=lambda: stopping,
            )
            if outcome is Outcome.TRIALS and run.prepared.config.search.baselines:
                progress.update(task, total=None, description="baselines")
                outcome = search_baselines(
                    run,
                    on_trial=lambda _: progress.advance(task),
                    should_stop=lambda: stopping,
                )
    finally:
        signal.signal(signal.SIGINT, before)
        run.close()
    output.print(f"{len(run.study.trials)} trials: {outcome.value}; {_summary(run)}")
    output.print(f"run: {run.folder} (evosearch pareto shows its front)", soft_wrap=True)
    if outcome is Outcome.STOPPED:
        output.print(f"go on with: evosearch resume {run.folder}", soft_wrap=True)
        raise KeyboardInterrupt


def _summary(run: "Run") -> str:
    members = run.front.members
    failed = sum(trial.error is not None for trial in run.study.trials)
    best = f"best loss {run.front.best().evaluation.loss:.3f}, " if members else ""  # type: ignore[union-attr]
    return f"{best}front of {len(members)}{f', {failed} failed' if failed else ''}"


@contextmanager
def stages(messages: Console) -> Iterator[Callable[[str], None]]:
    """Shows what is being done before the first trial."""
    with messages.status("") as status:
        yield lambda stage: status.update(stage)


@contextmanager
def epoch_lines(title: str, messages: Console) -> Iterator[Callable[["EpochRecord"], None]]:
    """Gives a callback that prints training progress, a line for every tenth of the epochs."""
    shown = -1

    def on_epoch(record: "EpochRecord") -> None:
        nonlocal shown
        tenth = 10 * record.epoch // record.epochs
        if tenth == shown:
            return
        shown = tenth
        accuracy = "" if record.search is None else f", search {record.search.accuracy:.2%}"
        left = ""
        if record.epoch:
            rest = record.seconds / record.epoch * (record.epochs - record.epoch)
            left = f", {rest:.0f} s left"
        messages.print(f"{title}: epoch {record.epoch} of {record.epochs}{accuracy}{left}")

    yield on_epoch
