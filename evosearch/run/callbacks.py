"""The callbacks of whatever takes its time: told what is done, asked whether to go on.

Imported without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from evosearch.stages import OnStage
from evosearch.study.front import ParetoFront
from evosearch.study.study import Study
from evosearch.study.trial import Trial

if TYPE_CHECKING:
    from evosearch.training.epochs import OnEpoch


def _silent(*_: object) -> None:
    """Does nothing with what it is told."""


@final
@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that are called while something goes on; by default none does anything.

    Attributes:
        on_stage: told what is being done.
        on_note: told, in a line, what is worth knowing of what comes.
        on_epoch: told how a training goes, epoch by epoch.
        on_search: called before the first trial of a session, with the study and the number of
            trials that it is to have in all.
        on_trial: called with every trial that is recorded.
        on_front: called with the front whenever a trial enters it.
        on_baselines: called before the baselines are searched, with the number of trials that
            they may take in all.
        on_baseline_trial: called with every trial of a baseline.
        should_stop: asked before every evaluation; where it says so, the search ends.
    """

    on_stage: OnStage = _silent
    on_note: Callable[[str], None] = _silent
    on_epoch: "OnEpoch | None" = None
    on_search: Callable[[Study, int], None] = _silent
    on_trial: Callable[[Trial], None] = _silent
    on_front: Callable[[ParetoFront], None] | None = None
    on_baselines: Callable[[int], None] = _silent
    on_baseline_trial: Callable[[Trial], None] = _silent
    should_stop: Callable[[], bool] = lambda: False

    def noting(self, notes: list[str]) -> "Callbacks":
        """Returns the same callbacks, which add what is noted to a list as well."""

        def on_note(text: str) -> None:
            notes.append(text)
            self.on_note(text)

        return replace(self, on_note=on_note)

    def told_of(self, study: Study) -> Callable[[Trial], None]:
        """Returns what is called with every trial of a study: `on_trial`, then `on_front`."""

        def told(trial: Trial) -> None:
            self.on_trial(trial)
            if self.on_front is not None and trial.is_complete:
                front = study.front()
                if trial in front.members:
                    self.on_front(front)

        return told


SILENT = Callbacks()
