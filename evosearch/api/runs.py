"""Runs from Python: read from their folders, and a network of one picked."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from rich.console import Group

from evosearch.api.parameters import Images, Model, PathLike, Splits, TaskOrName
from evosearch.errors import InputError
from evosearch.objects import Objects, given
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
    from evosearch.run.finetuning import Finetuned
    from evosearch.run.finished import Trained

OWN_TRAINING = "own training"
"""What a training that is not this program's is called, unless it has a name."""


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Run:
    """A run on disk, finished or not, as it was when it was read; a notebook shows its front.

    Attributes:
        folder: where it lies.
        study: its trials and what they are about.
        ended: what came of the search, or of the training under a budget, that gave it; None for a
            run that was only read.
        objects: what it was made from, where that was a model and images in place of a space file.
    """

    folder: Path
    study: Study
    ended: "Ended | Trained | None" = None
    objects: Objects = field(default_factory=dict)

    def __fspath__(self) -> str:
        """Returns the folder: whatever takes that takes the run."""
        return str(self.folder)

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

        with scope_of(self):
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

        It is compact and compensated, changed by elastic weights where that is better; not
        trained by itself, on the CPU and in eval mode, and the same every time. `torch.save` of it
        loads wherever the model's code can be imported: of a `net.py` beside the space file, in a
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
        with scope_of(self):
            return network_of(self.folder, pick=named, at=at, callbacks=callbacks)

    def finish(
        self,
        network: "nn.Module",
        pick: str | int | None = None,
        *,
        at: str | None = None,
        name: str = OWN_TRAINING,
        callbacks: Callbacks = SILENT,
    ) -> "Finetuned":
        """Measures a network of the run that was trained elsewhere on test, and saves it.

        It is measured beside the networks that `finetune` measures, once each; on confirmation
        images where there are some; and its artifact is written. Train it on images that neither
        search nor confirmation hold: give these as `held_out`, where they are objects. As in

            network = run.network(at="flops=37%")
            ...  # a training loop of your own
            done = run.finish(network)

        Args:
            network: one that `network` gave, trained; it stays as it is.
            pick: the network of the run that it was, where the module does not say so itself: one
                that was built anew and given its weights, or taken out of a wrapper. As `pick`.
            at: as `pick`.
            name: of the training, for tables and the artifact; another for each training of one
                plan, as a network is measured once.
            callbacks: told what is being done.

        Raises:
            InputError: its tensors are not those of the plan, or no plan is named.
        """
        from evosearch.run.finishing import finish

        named = None if pick is None else str(pick)
        with scope_of(self):
            return finish(self.folder, network, pick=named, at=at, name=name, callbacks=callbacks)

    def rows(self) -> list[dict[str, Any]]:
        """Returns a flat dict for every trial, as `pandas.DataFrame` takes them.

        FLOPs and params are for one image, a predicted latency is of one batch; accuracies and
        ratios are shares; losses are in nats.
        """
        return trial_rows(self.study)


def load_run(
    run: PathLike,
    *,
    model: Model = None,
    train: Images = None,
    test: Images = None,
    held_out: Splits = None,
    task: TaskOrName = None,
) -> Run:
    """Reads a run, also while it is being searched.

    One that was made from objects can be read without them; what builds networks takes a run that
    was read with them, as in

        run = evosearch.load_run("runs/objects-1", model=net, train=train, test=test)
        evosearch.resume(run, trials=200)

    Whether they are what the run began with is checked by their content when they are used.

    Args:
        run: folder of a run.
        model: of a run that was made from objects: the network that it was made from.
        train: likewise, the training images.
        test: likewise, the test images.
        held_out: likewise, the splits that were not taken out of the training images, if any.
        task: likewise, the task, where it was no name.

    Raises:
        InputError: the folder holds no run, or one that was not made from objects, or whose task
            is a name.
    """
    found = Run(folder=Path(run), study=Study.open(Path(run)))
    if all(value is None for value in (model, train, test, held_out, task)):
        return found
    from evosearch.api.subjects import objects_of
    from evosearch.run.config import read_run_config

    space = read_run_config(found.folder).space
    if not space.is_of_objects:
        raise InputError(f"{found.folder}: made from a space file: leave the objects out")
    if task is not None and space.task.given is None and task != space.task.name:
        raise InputError(
            f"{found.folder}: its task is {space.task.name!r}, by that name: leave task= out"
        )
    objects = objects_of(model=model, train=train, test=test, held_out=held_out, task=task)
    return replace(found, objects=objects)


def objects_in(run: PathLike) -> Objects:
    """Returns the objects that a run was read or made with; none of a folder."""
    return run.objects if isinstance(run, Run) else {}


def scope_of(run: PathLike) -> AbstractContextManager[None]:
    """Returns a block inside which names mean the objects of a run."""
    return given(objects_in(run))
