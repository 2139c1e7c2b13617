"""The run's record: an Optuna study on disk, one trial per evaluated mask."""

import json
import os
import warnings
from pathlib import Path
from typing import final

import optuna
from optuna.distributions import IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial

from evosearch.errors import InputError
from evosearch.files import writing
from evosearch.space.budget import Budget
from evosearch.space.resources import RESOURCES, Resource
from evosearch.study.front import ParetoFront
from evosearch.study.latency_certificate import Check
from evosearch.study.records import Header, Segment, trial_from_json, trial_to_json
from evosearch.study.trial import Trial

STUDY_NAME = "evosearch"
STUDY_FILE = "study.log"
_HEADER = "evosearch"
_SEGMENTS = "segments"


@final
class Study:
    """A study on disk: its header, its trials in order, and how to append one."""

    def __init__(self, path: Path, study: optuna.Study, header: Header) -> None:
        """Wraps the open Optuna study of a file; use `create` or `open`."""
        self._path, self._study = path, study
        self.header = header
        segments = study.user_attrs.get(_SEGMENTS, [])
        self._segments = [Segment.from_json(item) for item in segments] or [
            Segment(first=0, budget=header.budget, aim=header.budget)
        ]
        self._trials = [
            trial_from_json(f.number, f.state.name, f.user_attrs, header.sizes)
            for f in study.get_trials(deepcopy=False)
        ]

    def __repr__(self) -> str:
        about = f"{self.header.strategy}, seed {self.header.seed}, {len(self._trials)} trials"
        return f"Study({self._path.parent}: {about})"

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial recorded so far, in order."""
        return tuple(self._trials)

    @property
    def full_evaluations(self) -> int:
        """How many networks were scored on the whole search split, each mask once."""
        return sum(t.is_complete and t.duplicate_of is None for t in self._trials)

    @property
    def repeated(self) -> int:
        """How many trials have a mask that was tried before."""
        return sum(t.duplicate_of is not None for t in self._trials)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts with a budget each, in order; the last is open."""
        return tuple(self._segments)

    @property
    def budget(self) -> Budget:
        """What is feasible now."""
        return self._segments[-1].feasible(self.header.base_cost.latency)

    @property
    def requested(self) -> Budget:
        """What the user asks for now."""
        return self._segments[-1].budget

    def begin_segment(self, budget: Budget, aim: Budget, checks: tuple[Check, ...] = ()) -> None:
        """Has the trials from here on proposed for another budget.

        Raises:
            StorageError: the study cannot be written.
        """
        if self._segments[-1].first == len(self._trials):
            self._segments.pop()
        segment = Segment(first=len(self._trials), budget=budget, aim=aim, checks=checks)
        self._segments.append(segment)
        with writing(self._path):
            self._study.set_user_attr(_SEGMENTS, [s.to_json() for s in self._segments])

    @classmethod
    def create(cls, folder: Path, header: Header) -> "Study":
        """Starts an empty study in a folder."""
        _quiet_optuna()
        path = folder / STUDY_FILE
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=STUDY_NAME,
            directions=["minimize", "minimize"],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(["loss", header.resource.name])
        study.set_user_attr(_HEADER, header.to_json())
        return cls(path, study, header)

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """Reads the study of a run.

        A record that a kill cut short at the end of the file is not part of the study.

        Raises:
            InputError: the folder holds no study, or one that cannot be read.
        """
        path = folder / STUDY_FILE
        if not path.is_file():
            raise InputError(f"{folder}: not a run (it has no {STUDY_FILE})")
        _quiet_optuna()
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
            study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
            if _HEADER not in study.user_attrs:
                raise InputError("cut short before its first trial; start a new run")
            return cls(path, study, Header.from_json(study.user_attrs[_HEADER]))
        # A damaged journal raises nearly anything.
        except Exception as error:
            reason = str(error) if isinstance(error, InputError) else _damage(path, error)
            raise InputError(f"{path}: not a readable study: {reason}") from error

    @classmethod
    def open_for_appending(cls, folder: Path) -> "Study":
        """Opens the study of a run that this process holds the lock of.

        The torn tail that a kill may have left is cut, and a lock file of the dead writer
        removed: appending after a torn record would make the journal unreadable.

        Raises:
            InputError: the folder holds no study, or one that cannot be read.
            StorageError: it cannot be written to.
        """
        path = folder / STUDY_FILE
        if path.is_file():
            with writing(path):
                _cut_torn_tail(path)
                path.with_name(f"{STUDY_FILE}.lock").unlink(missing_ok=True)
        return cls.open(folder)

    def front(self, size: Resource | None = None) -> ParetoFront:
        """Returns the front so far, in the given size or the one that the study minimises."""
        return ParetoFront(
            trials=self.trials,
            budget=self.budget,
            size=size or self.header.resource,
        )

    def append(self, trial: Trial) -> None:
        """Records a trial: one write, on disk when this returns.

        Raises:
            StorageError: it cannot be written; the trials before it are whole.
        """
        header = self.header
        params = trial.mask.widths
        with writing(self._path):
            self._study.add_trial(
                create_trial(
                    state=optuna.trial.TrialState[trial.state.name],
                    values=[trial.loss, float(header.resource.of(trial.cost))]
                    if trial.is_complete
                    else None,
                    params=params,
                    distributions={
                        name: IntDistribution(header.least_widths[name], header.sizes[name])
                        for name in params
                    },
                    user_attrs=trial_to_json(trial),
                    constraints=_constraints(trial, self.budget),
                )
            )
        self._trials.append(trial)


def _constraints(trial: Trial, budget: Budget) -> dict[str, float]:
    """Returns by what share of its bound each resource is over (positive) or under."""
    constraints = {
        name: (RESOURCES[name].of(trial.cost) - bound.high) / bound.high
        for name, bound in budget.bounds.items()
    }
    if budget.least_accuracy is not None and trial.evaluation is not None:
        constraints["accuracy"] = budget.least_accuracy - trial.evaluation.score.accuracy
    return constraints


def _cut_torn_tail(path: Path) -> None:
    """Cuts what follows the last complete line of a journal."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)


def _damage(path: Path, error: Exception) -> str:
    """Returns one line on what is wrong with a journal that gave an error."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                json.loads(line)
            except ValueError:
                return f"line {number} is damaged; what comes before it is whole"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
