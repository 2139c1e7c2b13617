"""The records of a study's file: its header, its segments and its trials, as JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evosearch.errors import InputError
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import Resource, amounts
from evosearch.study.identity import Identity
from evosearch.study.latency_certificate import Check, corrected
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation, Rung, Step, Trial, TrialState

FORMAT = 3


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
        identity: of model, data and task, by contents; without the images behind it.
        references: the base network first, then the baselines.
        config: what that file said, key by key, so that an edit can be named.
    """

    space_digest: str
    config_digest: str
    sizes: Mapping[str, int]
    least_widths: Mapping[str, int]
    budget: Budget
    base_cost: Cost
    strategy: str
    seed: int
    identity: Identity
    references: tuple[NamedNetwork, ...]
    config: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Header({self.strategy}, seed {self.seed}, {self.budget}, base network of"
            f" {amounts(self.base_cost)})"
        )

    @property
    def resource(self) -> Resource:
        """The resource that is minimised beside the loss."""
        return self.budget.resource

    @property
    def base(self) -> NamedNetwork:
        """The unpruned network."""
        return self.references[0]

    @property
    def is_training(self) -> bool:
        """Whether it is of a training under a budget, and not of a search."""
        return "prune.recipe" in self.config

    @property
    def is_from_fresh_weights(self) -> bool:
        """Whether it is of a training under a budget, whose whole network was untrained."""
        return self.config.get("prune.weights") == "fresh"

    def to_json(self) -> dict[str, Any]:
        """Returns the header as JSON."""
        return {
            "format": FORMAT,
            **asdict(self),
            "sizes": dict(self.sizes),
            "least_widths": dict(self.least_widths),
            "budget": self.budget.to_json(),
            "identity": self.identity.to_json(),
            "references": [network_to_json(reference) for reference in self.references],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Header":
        """Reads what `to_json` wrote.

        Raises:
            InputError: another version wrote it.
        """
        found = data.get("format")
        if found != FORMAT:
            raise InputError(
                f"study format {found!r}, this version reads {FORMAT}; start a new run, or open"
                " this one with the version of evosearch that its environment.json names"
            )
        content = {key: value for key, value in data.items() if key != "format"}
        references = tuple(network_from_json(n, data["sizes"]) for n in data["references"])
        return cls(
            **{
                **content,
                "budget": Budget.from_json(data["budget"]),
                "base_cost": Cost(**data["base_cost"]),
                "identity": Identity.from_json(data["identity"]),
                "references": references,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a study whose trials were proposed for one budget.

    Attributes:
        first: number of its first trial.
        budget: what is feasible from here on.
        aim: what trials are proposed for: the budget itself; with a latency, the budget over the
            correction that the checks call for; or a size that the search for the smallest
            network of some accuracy tries, within that.
        checks: trials that were timed before it began.
    """

    first: int
    budget: Budget
    aim: Budget
    checks: tuple[Check, ...] = ()

    def feasible(self, base_picoseconds: int) -> Budget:
        """Returns what a trial must meet: of a predicted time, as much as the checks allow.

        Args:
            base_picoseconds: the base network's latency.
        """
        if not self.budget.measured:
            return self.budget
        if self.budget.least_accuracy is not None:
            return corrected(self.budget, self.checks, base_picoseconds)
        return self.budget.but(**{name: self.aim.bounds[name] for name in self.budget.measured})

    def to_json(self) -> dict[str, Any]:
        """Returns the segment as JSON."""
        return {
            "first": self.first,
            "budget": self.budget.to_json(),
            "aim": self.aim.to_json(),
            **({"checks": [asdict(check) for check in self.checks]} if self.checks else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Segment":
        """Reads what `to_json` wrote."""
        return cls(
            first=data["first"],
            budget=Budget.from_json(data["budget"]),
            aim=Budget.from_json(data["aim"]),
            checks=tuple(Check.from_json(item) for item in data.get("checks", ())),
        )


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """Returns a trial as JSON, but for its number and state, which the study keeps itself."""
    evaluation = trial.evaluation
    return {
        "generation": trial.generation,
        "mask": trial.mask.to_json(),
        "genome": dict(trial.genome),
        "cost": asdict(trial.cost),
        "evaluation": None if evaluation is None else evaluation_to_json(evaluation),
        "steps": [{**asdict(step), "rung": step.rung.name} for step in trial.steps],
        "error": trial.error,
        "duplicate_of": trial.duplicate_of,
    }


def trial_from_json(
    number: int, state: str, record: Mapping[str, Any], sizes: Mapping[str, int]
) -> Trial:
    """Reads what `trial_to_json` wrote.

    Args:
        number: of the trial.
        state: name of a `TrialState`.
        record: the JSON.
        sizes: group name -> number of channels.
    """
    evaluation = record["evaluation"]
    return Trial(
        number=number,
        generation=record["generation"],
        mask=Mask.from_json(record["mask"], sizes),
        genome=record["genome"],
        cost=Cost(**record["cost"]),
        state=TrialState[state],
        evaluation=None if evaluation is None else evaluation_from_json(evaluation),
        steps=tuple(Step(**{**step, "rung": Rung[step["rung"]]}) for step in record["steps"]),
        error=record["error"],
        duplicate_of=record["duplicate_of"],
    )


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Returns an evaluation as JSON."""
    rest = {"seconds": evaluation.seconds, "rung": evaluation.rung.name}
    return {**asdict(evaluation.score), **rest}


def evaluation_from_json(data: Mapping[str, Any]) -> Evaluation:
    """Reads what `evaluation_to_json` wrote."""
    score = {name: value for name, value in data.items() if name not in ("seconds", "rung")}
    return Evaluation(score=Score(**score), seconds=data["seconds"], rung=Rung[data["rung"]])


def network_to_json(network: NamedNetwork) -> dict[str, Any]:
    """Returns a network that was measured on the search split as JSON."""
    assert network.evaluation is not None
    return {
        "name": network.name,
        "mask": network.mask.to_json(),
        "cost": asdict(network.cost),
        "evaluation": evaluation_to_json(network.evaluation),
    }


def network_from_json(data: Mapping[str, Any], sizes: Mapping[str, int]) -> NamedNetwork:
    """Reads what `network_to_json` wrote."""
    return NamedNetwork(
        name=data["name"],
        mask=Mask.from_json(data["mask"], sizes),
        cost=Cost(**data["cost"]),
        evaluation=evaluation_from_json(data["evaluation"]),
    )
