"""The run's record: an Optuna study on disk, one trial per evaluated mask."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import optuna
from optuna.distributions import IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, create_trial

from evosearch.cost import Budget, Cost
from evosearch.errors import InputError
from evosearch.front import ParetoFront
from evosearch.mask import Mask
from evosearch.trial import Evaluation, Objective, Rung, Trial, TrialState

FORMAT = 1
STUDY_NAME = "evosearch"
STUDY_FILE = "study.log"
_HEADER = "evosearch"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A network that was measured beside the search, to compare with.

    Attributes:
        name: what tables call it.
        mask: its channels.
        cost: its exact cost.
        evaluation: as measured on the search split.
    """

    name: str
    mask: Mask
    cost: Cost
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a study is about; written once, before its first trial.

    Attributes:
        space_digest: of the search space.
        config_digest: of the run's config file.
        sizes: group name -> number of channels.
        least_widths: group name -> smallest legal width.
        budget: what is feasible.
        base_cost: of the unpruned network.
        strategy: name of the strategy.
        seed: the run's.
        references: the base network first, then the baselines.
    """

    space_digest: str
    config_digest: str
    sizes: Mapping[str, int]
    least_widths: Mapping[str, int]
    budget: Budget
    base_cost: Cost
    strategy: str
    seed: int
    references: tuple[Reference, ...]

    @property
    def size_objective(self) -> Objective:
        """The size minimised beside the loss: params where only they are limited."""
        return Objective.PARAMS if self.budget.macs is None else Objective.MACS

    def to_json(self) -> dict[str, Any]:
        """Returns the header as JSON."""
        return {
            "format": FORMAT,
            **asdict(self),
            "sizes": dict(self.sizes),
            "least_widths": dict(self.least_widths),
            "budget": self.budget.to_json(),
            "references": [
                {
                    "name": reference.name,
                    "mask": reference.mask.to_json(),
                    "cost": asdict(reference.cost),
                    "evaluation": _evaluation_to_json(reference.evaluation),
                }
                for reference in self.references
            ],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Header":
        """Reads what `to_json` wrote.

        Raises:
            InputError: another version wrote it.
        """
        if data.get("format") != FORMAT:
            raise InputError(f"study format {data.get('format')!r}, this version reads {FORMAT}")
        content = {key: value for key, value in data.items() if key != "format"}
        references = tuple(
            Reference(
                name=item["name"],
                mask=Mask.from_json(item["mask"], data["sizes"]),
                cost=Cost(**item["cost"]),
                evaluation=_evaluation_from_json(item["evaluation"]),
            )
            for item in data["references"]
        )
        return cls(
            **{
                **content,
                "budget": Budget.from_json(data["budget"]),
                "base_cost": Cost(**data["base_cost"]),
                "references": references,
            }
        )


@final
class Study:
    """A study on disk: its header, its trials in order, and how to append one."""

    def __init__(self, study: optuna.Study, header: Header) -> None:
        """Wraps an open Optuna study; use `create` or `open`."""
        self._study = study
        self.header = header
        self._trials = [self._to_trial(frozen) for frozen in study.get_trials(deepcopy=False)]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial recorded so far, in order."""
        return tuple(self._trials)

    @classmethod
    def create(cls, folder: Path, header: Header) -> "Study":
        """Starts an empty study in a folder."""
        _quiet_optuna()
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / STUDY_FILE))),
            study_name=STUDY_NAME,
            directions=["minimize", "minimize"],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([Objective.LOSS.value, header.size_objective.value])
        study.set_user_attr(_HEADER, header.to_json())
        return cls(study, header)

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
            return cls(study, Header.from_json(study.user_attrs[_HEADER]))
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise InputError(f"{path}: not a readable study ({error!r})") from error

    @classmethod
    def open_for_appending(cls, folder: Path) -> "Study":
        """Opens the study of a run that this process holds the lock of.

        The torn tail that a kill may have left is cut, and a lock file of the dead writer
        removed: appending after a torn record would make the journal unreadable.
        """
        path = folder / STUDY_FILE
        if path.is_file():
            _cut_torn_tail(path)
            path.with_name(f"{STUDY_FILE}.lock").unlink(missing_ok=True)
        return cls.open(folder)

    def front(self, size: Objective | None = None) -> ParetoFront:
        """Returns the front so far, in the given size or the one that the study minimises."""
        return ParetoFront(
            trials=self.trials,
            budget=self.header.budget,
            size=size or self.header.size_objective,
        )

    def append(self, trial: Trial) -> None:
        """Records a trial: one write, on disk when this returns."""
        header = self.header
        params = trial.mask.widths
        self._study.add_trial(
            create_trial(
                state=optuna.trial.TrialState.COMPLETE
                if trial.state is TrialState.COMPLETE
                else optuna.trial.TrialState.FAIL,
                values=[Objective.LOSS.of(trial), header.size_objective.of(trial)]
                if trial.evaluation is not None
                else None,
                params=params,
                distributions={
                    name: IntDistribution(header.least_widths[name], header.sizes[name])
                    for name in params
                },
                user_attrs=_record(trial),
                constraints={
                    name: (getattr(trial.cost, name) - bound.high) / bound.high
                    for name, bound in header.budget.bounds.items()
                },
            )
        )
        self._trials.append(trial)

    def _to_trial(self, frozen: FrozenTrial) -> Trial:
        record = frozen.user_attrs
        evaluation = record["evaluation"]
        return Trial(
            number=frozen.number,
            generation=record["generation"],
            mask=Mask.from_json(record["mask"], self.header.sizes),
            genome=record["genome"],
            cost=Cost(**record["cost"]),
            state=TrialState.FAIL if evaluation is None else TrialState.COMPLETE,
            evaluation=None if evaluation is None else _evaluation_from_json(evaluation),
            error=record["error"],
            duplicate_of=record["duplicate_of"],
        )


def _record(trial: Trial) -> dict[str, Any]:
    evaluation = trial.evaluation
    return {
        "generation": trial.generation,
        "mask": trial.mask.to_json(),
        "genome": dict(trial.genome),
        "cost": asdict(trial.cost),
        "evaluation": None if evaluation is None else _evaluation_to_json(evaluation),
        "error": trial.error,
        "duplicate_of": trial.duplicate_of,
    }


def _evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    return {**asdict(evaluation), "rung": evaluation.rung.name}


def _evaluation_from_json(data: dict[str, Any]) -> Evaluation:
    return Evaluation(**{**data, "rung": Rung[data["rung"]]})


def _cut_torn_tail(path: Path) -> None:
    """Cuts what follows the last complete line of a journal."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)


def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
