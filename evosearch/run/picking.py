"""A plan of a run that a user picked, with the run opened and held for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.log import RunLog
from evosearch.run.planning import measured_plan, pick_plan
from evosearch.run.preparation import Prepared
from evosearch.run.reopening import held, reopen
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study


@final
@dataclass(frozen=True, kw_only=True)
class Picked:
    """A plan of a run, and what is needed to build its network.

    Attributes:
        study: of the run.
        prepared: what the run works with.
        plan: the one that was picked.
        log: of the run.
    """

    study: Study
    prepared: Prepared
    plan: NamedNetwork
    log: RunLog


@contextmanager
def picked(
    folder: Path, *, pick: str | None, at: str | None, callbacks: Callbacks = SILENT
) -> Iterator[Picked]:
    """Opens a run, and holds it inside the block.

    Args:
        folder: of the run.
        pick: see `planning.pick_plan`.
        at: a budget such as "flops=50%"; then the best known plan within it is meant, measured
            on the search split first where it is only predicted.
        callbacks: told what is being done.

    Raises:
        InputError: no such run or trial, or nothing fits the budget.
    """
    study = Study.open(folder)
    plan = pick_plan(folder, study, pick, at)  # refuses what cannot be before anything is opened
    with held(folder) as log:
        prepared = reopen(folder, study.header, callbacks.on_stage)
        if at is not None:
            callbacks.on_stage("search split")
            plan = measured_plan(folder, study, at, prepared.evaluator.evaluate)
        yield Picked(study=study, prepared=prepared, plan=plan, log=log)


def measure_at(folder: Path, at: str, *, callbacks: Callbacks = SILENT) -> NamedNetwork:
    """Returns the best plan of a run within a budget, once what can be decoded is measured.

    Args:
        folder: of the run.
        at: a budget such as "flops=37%".
        callbacks: told what is being done.

    Raises:
        InputError: the folder holds no run that can be opened, or nothing fits.
    """
    with picked(folder, pick=None, at=at, callbacks=callbacks) as run:
        return run.plan
