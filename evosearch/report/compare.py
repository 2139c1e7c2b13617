"""The comparison of runs of one space and base network: whose front is where, who dominates whom.

Imported without torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from rich.console import Group, RenderableType

from evosearch.errors import InputError
from evosearch.report.columns import (
    NAME,
    NetworkColumn,
    dominated_column,
    measured_columns,
    trial_column,
)
from evosearch.report.front import members_json
from evosearch.report.searches import FULL_EVALUATIONS, HYPERVOLUME, Searched, reference_point
from evosearch.report.tables import Column, json_object, terminal_table
from evosearch.report.views import View
from evosearch.run.recorded import recorded_identity
from evosearch.space.resources import Resource
from evosearch.study.front import ParetoFront
from evosearch.study.identity import Identity, Part
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Trial

SAME = 1e-3
"""Largest relative difference of two base losses that rounding on other devices explains."""


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(View):
    """The fronts of several runs; see `View`.

    Attributes:
        studies: run -> study, in the order that they were given; a run is called by the last
            part of its folder, where that tells it from the others.
        fronts: run -> front; all in the same size.
        reference: the (size, loss) that all hypervolumes are measured from.
        differences: run -> what it is about otherwise than the first one, in a few words each.
    """

    studies: Mapping[str, Study]
    fronts: Mapping[str, ParetoFront]
    reference: tuple[float, float]
    differences: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, folders: Sequence[Path], size: Resource | None = None) -> "Comparison":
        """Reads runs.

        Raises:
            InputError: there are fewer than two, or they are not of one space, base network,
                search split and task.
        """
        places = list(dict.fromkeys(folders))
        if len(places) < 2:
            raise InputError("compare needs at least two different runs")
        unique = len({place.name for place in places}) == len(places)
        named = {place.name if unique else str(place): place for place in places}
        studies = {name: Study.open(place) for name, place in named.items()}
        identities = {
            name: recorded_identity(named[name], study.header) for name, study in studies.items()
        }
        first, *others = studies
        for name in others:
            _require_comparable(first, name, studies, identities)
        axis = size or studies[first].header.resource
        fronts = {name: study.front(axis) for name, study in studies.items()}
        points = [reference_point(studies[name], front) for name, front in fronts.items()]
        reference = points[0][0], max(loss for _, loss in points)
        differences = {
            name: identities[first].differences(identity) for name, identity in identities.items()
        }
        return cls(studies=studies, fronts=fronts, reference=reference, differences=differences)

    @property
    def base(self) -> Study:
        """The study whose base network stands for all."""
        return next(iter(self.studies.values()))

    def dominated(self, name: str) -> dict[int, list[tuple[str, int]]]:
        """Returns who dominates the members of a run's front.

        Returns:
            Trial number -> (run, trial number) of every member of another front that is no worse
            in loss and size, and better in one of them.
        """
        front = self.fronts[name]
        return {
            trial.number: [
                (other, rival.number)
                for other, theirs in self.fronts.items()
                if other != name
                for rival in theirs.members
                if _dominates(rival, trial, front.size)
            ]
            for trial in front.members
        }

    @property
    def searches(self) -> tuple[Searched, ...]:
        """The runs, each with its front."""
        return tuple(
            Searched(name=name, study=study, front=self.fronts[name], reference=self.reference)
            for name, study in self.studies.items()
        )

    @property
    def size(self) -> Resource:
        """The size axis of all fronts."""
        return next(iter(self.fronts.values())).size

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as JSON."""
        return {
            "size": self.size.name,
            "reference": {"size": self.reference[0], "loss": self.reference[1]},
            "runs": [self._run_json(search) for search in self.searches],
        }

    def _run_json(self, search: Searched) -> dict[str, Any]:
        columns = (trial_column(search.knee), *self._member_columns())
        return {
            **json_object(_RUN_COLUMNS, search),
            "trials": len(search.study.trials),
            "differences": list(self.differences[search.name]),
            "front": members_json(columns, self._members(search)),
        }

    def render(self) -> RenderableType:
        """Returns the comparison for people."""
        beaten = Column[Searched](header="dominated", cell=self._beaten)
        runs = terminal_table((*_RUN_COLUMNS, _FRONT_SIZE, beaten), self.searches)
        members = [network for search in self.searches for network in self._members(search)]
        members.sort(key=lambda network: self.size.of(network.cost))
        networks = terminal_table((NAME, *self._member_columns()), members)
        return Group(runs, networks, self._reference_line(), *self._difference_lines())

    def _members(self, search: Searched) -> list[NamedNetwork]:
        """Returns the front of a run, each network by the name of its run and trial."""
        return [replace(n, name=f"{search.name} {n.trial}") for n in search.members]

    def _member_columns(self) -> tuple[NetworkColumn, ...]:
        by = {
            f"{name} {number}": rivals
            for name in self.studies
            for number, rivals in self.dominated(name).items()
        }
        return (*measured_columns(*self.studies.values()), dominated_column(by))

    def _beaten(self, search: Searched) -> str:
        return str(sum(bool(by) for by in self.dominated(search.name).values()))

    def _difference_lines(self) -> list[str]:
        first = next(iter(self.studies))
        return [
            f"{name} is not of the same as {first}; from {first} to {name}: {'; '.join(found)}"
            for name, found in self.differences.items()
            if found
        ]

    def _reference_line(self) -> str:
        return (
            f"hypervolume: share of the box from 0 to the base network's {self.size.heading} and a"
            f" loss of {self.reference[1]:.3f}; a network is named by its run and trial"
        )


_RUN_COLUMNS = (
    Column[Searched](
        header="run", cell=lambda search: search.name, json=lambda search: {"run": search.name}
    ),
    Column[Searched](
        header="strategy",
        cell=lambda search: f"{search.study.header.strategy}, seed {search.study.header.seed}",
        json=lambda search: {
            "strategy": search.study.header.strategy,
            "seed": search.study.header.seed,
        },
    ),
    FULL_EVALUATIONS,
    HYPERVOLUME,
)
_SCORES = (Part.SEARCH, Part.TASK)
"""What a score is of, and what it means."""
_FRONT_SIZE = Column[Searched](header="front", cell=lambda search: str(len(search.front.members)))


def _dominates(first: Trial, second: Trial, size: Resource) -> bool:
    ours = size.of(first.cost), first.loss
    theirs = size.of(second.cost), second.loss
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def _require_comparable(
    first: str, second: str, studies: Mapping[str, Study], identities: Mapping[str, Identity]
) -> None:
    """Refuses two runs whose losses and sizes say nothing of one another, by what differs."""
    if studies[first].header.space_digest != studies[second].header.space_digest:
        raise InputError(f"{first} and {second} are of different search spaces: not comparable")
    found = identities[first].only(_SCORES).differences(identities[second].only(_SCORES))
    if found:
        raise InputError(
            f"{first} and {second} score other things: not comparable; from the first to the"
            f" second: {'; '.join(found)}"
        )
    losses = [_base_loss(name, studies[name]) for name in (first, second)]
    if any(studies[name].header.is_from_fresh_weights for name in (first, second)):
        return  # one has no base network but its own beginning
    if not math.isclose(*losses, rel_tol=SAME):
        raise InputError(
            f"{first} and {second} are of different base networks (base losses"
            f" {losses[0]:.4f} and {losses[1]:.4f}): not comparable"
        )


def _base_loss(name: str, study: Study) -> float:
    if not study.header.references:
        raise InputError(f"{name}: its study holds no base network to compare by")
    return study.header.base.search.loss
