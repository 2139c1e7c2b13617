"""Runs from Python: read from their folders, and a network of one picked."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from rich.console import Group

from evosearch.api.parameters import PathLike
from evosearch.errors import InputError
from evosearch.report.front import Front
from evosearch.report.notebook import as_html
from evosearch.report.progress import study_summary
from evosearch.report.trials import trial_rows
from evosearch.run.baselines import baseline_studies
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.planning import pick_plan
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from evosearch.run.ended import Ended
    from evosearch.run.finished import Trained


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Run:
    """A run on disk, finished or not, as it was when it was read; a notebook shows its front.

    Attributes:
        folder: where it lies.
        study: its trials and what they are about.
        ended: what came of the search, or of the training under a budget, that gave it; None for a
            run that was only read.
    """

    folder: Path
    study: Study
    ended: "Ended | Trained | None" = None

    def __repr__(self) -> str:
        about = f"{self.study.header.strategy}, seed {self.study.header.seed}"
        counts = f"{len(self.study.trials)} trials, {study_summary(self.study)}"
        return f"Run({self.folder}: {about}, {counts})"

    def _repr_html_(self) -> str:
        return as_html(Group(repr(self), self.front.table()))

    @property
    def front(self) -> Front:
        """The Pareto front of loss against size: `members`, `knee`, `best`, `smallest`."""
        return Front.of(self.study)

    @property
    def baselines(self) -> dict[str, Study]:
        """The studies of the baselines that were searched beside, by name."""
        return baseline_studies(self.folder)

    def pick(
        self,
        pick: str | int | None = None,
        *,
        at: str | None = None,
        evaluate: bool = False,
        callbacks: Callbacks = SILENT,
    ) -> NamedNetwork:
        """Returns one network of the run.

        Args:
            pick: "knee", "best", "smallest" or a trial's number; None for the trial that the
                certificate is about, or the smallest where the budget is an accuracy, or else the
                knee.
            at: a budget such as "flops=37%", also one that was never searched.
            evaluate: whether the plan for that budget is measured, where it is only predicted.
            callbacks: told what is being done.

        Raises:
            InputError: there is none.
        """
        if evaluate and at is None:
            raise InputError(
                "--evaluate measures the plan of a budget: give --at flops=37% with it"
            )
        named = pick_plan(self.folder, self.study, None if pick is None else str(pick), at)
        if at is None or not evaluate:
            return named
        from evosearch.run.picking import measure_at

        return measure_at(self.folder, at, callbacks=callbacks)

    def plot(self) -> "Figure":
        """Returns a picture of the front and the baselines, which a notebook shows."""
        from evosearch.report.plot import front_figure

        return front_figure(self.study, self.front, self.baselines)

    def network(
        self,
        pick: str | int | None = None,
        *,
        at: str | None = None,
        callbacks: Callbacks = SILENT,
    ) -> "nn.Module":
        """Returns one network of the run as a module that can be used, trained or saved.

        It is compact and compensated, or a slice of the run's elastic weights; not trained by
        itself, on the CPU and in eval mode, and the same every time. `torch.save` of it loads
        wherever the model's code can be imported: of a `net.py` beside the space file, in a
        process that was started in that folder.

        Args:
            pick: as `pick`.
            at: as `pick`; the plan is measured first where it is only predicted.
            callbacks: told what is being done.

        Raises:
            InputError: there is none, or the run cannot be opened.
        """
        from evosearch.run.cutting import network_of

        named = None if pick is None else str(pick)
        return network_of(self.folder, pick=named, at=at, callbacks=callbacks)

    def rows(self) -> list[dict[str, Any]]:
        """Returns a flat dict for every trial, as `pandas.DataFrame` takes them.

        FLOPs and params are for one image, a predicted latency is of one batch; accuracies and
        ratios are shares; losses are in nats.
        """
        return trial_rows(self.study)


def load_run(run: PathLike) -> Run:
    """Reads a run, also while it is being searched.

    Args:
        run: folder of a run.

    Raises:
        InputError: the folder holds no run.
    """
    return Run(folder=Path(run), study=Study.open(Path(run)))
