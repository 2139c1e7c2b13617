"""What the command line shows while something takes its time."""

import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from evosearch.run.rivals import NAMES
from evosearch.study.trial import Rung, Trial

if TYPE_CHECKING:
    from evosearch.run.session import Run
    from evosearch.training.trainer import EpochRecord


def search_with_progress(
    run: "Run",
    trials: int,
    seconds: float | None,
    output: Console,
    messages: Console,
    workers: int | None = None,
    cluster: str | None = None,
) -> None:
    """Searches with a progress bar; the first Ctrl-C stops after the current evaluation.

    Args:
        run: created or resumed; closed afterwards.
        trials: of the study in all.
        seconds: wall time of this session; None is no limit.
        output: for what came of it.
        messages: for progress.
        workers: processes that measure; None is this one.
        cluster: address of a dask scheduler whose workers measure; None is no cluster.

    Raises:
        KeyboardInterrupt: the search was stopped; the run is whole and says how to go on.
    """
    from evosearch.engine.loop import Limits, Outcome
    from evosearch.run.baselines import full_evaluations, search_baselines

    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        messages.print("stopping after this evaluation; press Ctrl-C again to leave at once")

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    status = Text()
    screen = Group(progress, status)
    pace = Pace()
    before = signal.signal(signal.SIGINT, stop)
    try:
        if workers is not None or cluster is not None:
            run.use_workers(workers or 1, cluster)
        with Live(screen, console=messages, transient=True):
            task = progress.add_task("search", total=trials, completed=len(run.study.trials))

            def on_trial(trial: Trial) -> None:
                pace.add(trial)
                progress.update(task, completed=trial.number + 1)
                status.plain = f"{_summary(run)}, {pace.rate}\n{pace.shares}"

            def on_stage(stage: str) -> None:
                status.plain = stage

            outcome = run.search(
                Limits(trials=trials, seconds=seconds),
                on_trial=on_trial,
                on_stage=on_stage,
                should_stop=lambda: stopping,
            )
            spent = f"{pace.rate}; {pace.shares}"
            if outcome is Outcome.TRIALS and run.prepared.config.search.baselines:
                total = len(NAMES) * full_evaluations(run)
                progress.reset(task, total=total, description="baselines")
                outcome = search_baselines(
                    run,
                    on_trial=lambda _: progress.advance(task),
                    should_stop=lambda: stopping,
                )
        certificate = None
        if outcome is not Outcome.STOPPED and run.study.requested.measured:
            with messages.status("latency of the winner, against the base network"):
                certificate = run.certify()
    finally:
        signal.signal(signal.SIGINT, before)
        run.close()
    output.print(f"{len(run.study.trials)} trials: {outcome.value}; {_summary(run)}")
    if not run.front.members:
        output.print(_nearest(run))
    if pace.trials:
        output.print(spent)
    if certificate is not None:
        output.print(str(certificate))
    output.print(f"run: {run.folder} (evosearch pareto shows its front)", soft_wrap=True)
    if outcome is Outcome.STOPPED:
        output.print(f"go on with: evosearch resume {run.folder}", soft_wrap=True)
        raise KeyboardInterrupt


@final
class Pace:
    """How fast a session searches, and where its time goes."""

    def __init__(self) -> None:
        """Starts the clock."""
        self.trials = 0
        self._evaluations = 0
        self._began = time.monotonic()
        self._seconds: dict[Rung, float] = defaultdict(float)

    def add(self, trial: Trial) -> None:
        """Counts a trial of this session."""
        self.trials += 1
        if trial.duplicate_of is not None:
            return
        self._evaluations += trial.is_complete
        for step in trial.steps:
            self._seconds[step.rung] += step.seconds

    @property
    def rate(self) -> str:
        """Full evaluations per second so far."""
        return f"{self._evaluations / self._elapsed:.3g} evaluations/s"

    @property
    def shares(self) -> str:
        """Seconds on each rung; what is left of the wall time is the strategy's and the rest's.

        The two-step rung is climbed by the strategy. With several workers, seconds on the rungs
        are the sum over them.
        """
        rungs = [
            f"{rung.name.lower().replace('_', '-')} {seconds:.1f} s"
            for rung, seconds in sorted(self._seconds.items())
        ]
        rest = max(0.0, self._elapsed - sum(self._seconds.values()))
        return f"time: {', '.join([*rungs, f'strategy and the rest {rest:.1f} s'])}"

    @property
    def _elapsed(self) -> float:
        return max(1e-9, time.monotonic() - self._began)


def _summary(run: "Run") -> str:
    members = run.front.members
    failed = sum(trial.error is not None for trial in run.study.trials)
    best = f"best loss {run.front.best().evaluation.score.loss:.3f}, " if members else ""  # type: ignore[union-attr]
    return f"{best}front of {len(members)}{f', {failed} failed' if failed else ''}"


def _nearest(run: "Run") -> str:
    """Returns why a front is empty."""
    floor = run.study.budget.least_accuracy
    scored = [
        t.evaluation.score.accuracy for t in run.study.trials if t.is_complete and t.evaluation
    ]
    if floor is None or not scored:
        return "no trial meets the budget yet; resume the run for longer"
    return (
        f"no trial has kept a search accuracy of {floor:.2%} yet, the best {max(scored):.2%};"
        " resume the run for longer"
    )


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
