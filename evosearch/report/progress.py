"""The progress that the command line shows while something takes its time."""

import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from types import FrameType
from typing import TYPE_CHECKING, Self, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from evosearch.report.lines import Lines
from evosearch.run.callbacks import Callbacks
from evosearch.stages import duration
from evosearch.study.study import Study
from evosearch.study.trial import Rung, Trial

if TYPE_CHECKING:
    from evosearch.training.epochs import EpochRecord, OnEpoch


@final
class SearchProgress:
    """Shows how a search is prepared and goes on, inside a `with` block.

    From the first trial on, the first Ctrl-C stops the search after the current evaluation, the
    second one at once. Where there is no terminal, lines tell the same (`lines`).
    """

    def __init__(self, messages: Console, training: str = "training the base network") -> None:
        """Takes where to show it, and what the training is called where there is one."""
        self.pace = Pace()
        self._training = training
        self._messages = messages
        self._lines = None if messages.is_terminal else Lines(messages)
        self._shown = ExitStack()
        self._stage = messages.status("")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("search")
        self._status = Text()
        self._study: Study | None = None
        self._stopping = False

    def __enter__(self) -> Self:
        if self._lines is None:
            self._shown.enter_context(self._stage)
        else:
            self._shown.callback(self._lines.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()

    @property
    def callbacks(self) -> Callbacks:
        """What tells this progress how the search goes."""
        return Callbacks(
            on_stage=self._on_stage,
            on_note=partial(self._messages.print, soft_wrap=True),
            on_epoch=epoch_lines(self._training, self._messages),
            on_search=self._on_search,
            on_trial=self._on_trial,
            on_baselines=self._on_baselines,
            on_baseline_trial=self._on_baseline_trial,
            should_stop=lambda: self._stopping,
        )

    def _on_stage(self, stage: str) -> None:
        if self._lines is not None:
            self._lines.tell(stage)
        elif self._study is None:
            self._stage.update(stage)
        else:
            self._status.plain = stage

    def _on_search(self, study: Study, trials: int) -> None:
        self._shown.close()
        self._study, self.pace = study, Pace()
        before = signal.signal(signal.SIGINT, self._stop)
        self._shown.callback(signal.signal, signal.SIGINT, before)
        self._bar.update(self._task, total=trials, completed=len(study.trials))
        self._status.plain = forecast(study, trials)
        if self._lines is not None:
            self._shown.callback(self._lines.close)
            self._lines.tell(f"search: {forecast(study, trials)}")
            return
        screen = Group(self._bar, self._status)
        self._shown.enter_context(Live(screen, console=self._messages, transient=True))

    def _on_trial(self, trial: Trial) -> None:
        self.pace.add(trial)
        self._bar.update(self._task, completed=trial.number + 1)
        if self._study is None:
            return
        summary = study_summary(self._study)
        if self._lines is not None:
            done = f"trial {trial.number} is done{self._left}"
            self._lines.tell(f"search: {done}; {summary}", now=self.pace.trials == 1)
        self._status.plain = f"{summary}, {self.pace.rate}\n{self.pace.shares}"

    def _on_baselines(self, trials: int) -> None:
        self._bar.reset(self._task, total=trials, description="baselines")
        if self._lines is not None:
            self._lines.tell(f"baselines: at most {trials} trials")

    def _on_baseline_trial(self, _: Trial) -> None:
        self._bar.advance(self._task)
        if self._lines is not None:
            done = int(self._bar.tasks[0].completed)
            self._lines.tell(f"baselines: {done} trials{self._left}")

    @property
    def _left(self) -> str:
        """How long what the bar shows still takes, as fast as it went; nothing at its end."""
        task = self._bar.tasks[0]
        left = task.time_remaining
        return f", about {duration(left)} left" if left else ""

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        self._messages.print("stopping after this evaluation; press Ctrl-C again to leave at once")


@final
class Pace:
    """How fast a session searches, and where its time goes, up to its last trial."""

    def __init__(self) -> None:
        """Starts the clock."""
        self.trials = 0
        self._evaluations = 0
        self._began = time.monotonic()
        self._elapsed = 1e-9
        self._seconds: dict[Rung, float] = defaultdict(float)

    def add(self, trial: Trial) -> None:
        """Counts a trial of this session."""
        self.trials += 1
        self._elapsed = max(1e-9, time.monotonic() - self._began)
        if trial.duplicate_of is not None:
            return
        self._evaluations += trial.is_complete
        for step in trial.steps:
            self._seconds[step.rung] += step.seconds

    @property
    def rate(self) -> str:
        """Full evaluations per second."""
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


def forecast(study: Study, trials: int) -> str:
    """Returns how many trials are left, and how long they take if each takes what is known.

    Known is what the plans without a search took, which are built and scored like trials.

    Args:
        study: so far.
        trials: it is to have in all.
    """
    left = max(0, trials - len(study.trials))
    known = [n.evaluation.seconds for n in study.header.references[1:] if n.evaluation]
    if not known:
        return f"{left} trials"
    each = median(known)
    return f"{left} trials of about {each:.2g} s each, {duration(left * each)} in one process"


def study_summary(study: Study) -> str:
    """Returns the best loss of a study, the size of its front, and how many trials failed."""
    front = study.front()
    failed = sum(trial.error is not None for trial in study.trials)
    best = f"best loss {front.best().loss:.3f}, " if front.members else ""
    return f"{best}front of {len(front.members)}{f', {failed} failed' if failed else ''}"


@contextmanager
def shown(messages: Console, training: str = "training") -> Iterator[Callbacks]:
    """Shows what is being done inside the block, and how a training goes.

    Args:
        messages: where to show it.
        training: what the training is called.
    """
    told = Callbacks(
        on_note=partial(messages.print, soft_wrap=True), on_epoch=epoch_lines(training, messages)
    )
    if messages.is_terminal:
        with messages.status("") as status:
            yield replace(told, on_stage=status.update)
        return
    lines = Lines(messages)
    try:
        yield replace(told, on_stage=lines.tell)
    finally:
        lines.close()


def epoch_lines(title: str, messages: Console) -> "OnEpoch":
    """Returns a callback that prints training progress, a line for every tenth of the epochs."""
    printed = -1

    def on_epoch(record: "EpochRecord") -> None:
        nonlocal printed
        tenth = 10 * record.epoch // record.epochs
        if tenth == printed:
            return
        printed = tenth
        accuracy = "" if record.search is None else f", search {record.search.accuracy:.2%}"
        left = ""
        if record.epoch:
            rest = record.seconds / record.epoch * (record.epochs - record.epoch)
            left = f", {rest:.0f} s left"
        messages.print(f"{title}: epoch {record.epoch} of {record.epochs}{accuracy}{left}")

    return on_epoch
