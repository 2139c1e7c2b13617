"""Several runs of one space and base network: whose front is where, and who dominates whom."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rich.console import Group, RenderableType

from evosearch.errors import InputError
from evosearch.report.table import (
    measure_cells,
    plain_table,
    reference_point,
    trial_json,
)
from evosearch.space.resources import Resource
from evosearch.study.front import ParetoFront
from evosearch.study.study import Study
from evosearch.study.trial import Trial

SAME = 1e-3
"""Largest relative difference of two base losses that rounding on other devices explains."""


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The fronts of several runs.

    Attributes:
        studies: run -> study, in the order that they were given; a run is called by the last
            part of its folder, where that tells it from the others.
        fronts: run -> front; all in the same size.
        reference: the (size, loss) that all hypervolumes are measured from.
    """

    studies: Mapping[str, Study]
    fronts: Mapping[str, ParetoFront]
    reference: tuple[float, float]

    @classmethod
    def read(cls, folders: Sequence[Path], size: Resource | None = None) -> "Comparison":
        """Reads runs.

        Raises:
            InputError: there are fewer than two, or they are not of one space and base network.
        """
        places = list(dict.fromkeys(folders))
        if len(places) < 2:
            raise InputError("compare needs at least two different runs")
        unique = len({place.name for place in places}) == len(places)
        studies = {place.name if unique else str(place): Study.open(place) for place in places}
        first, *others = studies
        for name in others:
            _require_comparable(first, studies[first], name, studies[name])
        axis = size or studies[first].header.resource
        fronts = {name: study.front(axis) for name, study in studies.items()}
        points = [reference_point(studies[name], front) for name, front in fronts.items()]
        reference = points[0][0], max(loss for _, loss in points)
        return cls(studies=studies, fronts=fronts, reference=reference)

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

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as JSON."""
        base = self.base.header.base_cost
        return {
            "size": self.base_size.name,
            "reference": {"size": self.reference[0], "loss": self.reference[1]},
            "runs": [
                {
                    "run": name,
                    "strategy": study.header.strategy,
                    "seed": study.header.seed,
                    "trials": len(study.trials),
                    "full_evaluations": study.full_evaluations,
                    "hypervolume": self.fronts[name].hypervolume(self.reference),
                    "front": [
                        {**trial_json(trial, self.fronts[name], base), "dominated_by": by}
                        for trial, by in zip(
                            self.fronts[name].members,
                            self._dominated_json(name),
                            strict=True,
                        )
                    ],
                }
                for name, study in self.studies.items()
            ],
        }

    def render(self) -> RenderableType:
        """Returns the comparison for people."""
        runs = plain_table(
            "run", "strategy", "full\nevaluations", "hypervolume", "front", "dominated"
        )
        for name, study in self.studies.items():
            front = self.fronts[name]
            beaten = sum(bool(by) for by in self.dominated(name).values())
            volume = f"{front.hypervolume(self.reference):.4f}"
            counts = str(study.full_evaluations), volume, str(len(front.members)), str(beaten)
            runs.add_row(name, f"{study.header.strategy}, seed {study.header.seed}", *counts)
        return Group(runs, self._members_table(), self._reference_line())

    @property
    def base_size(self) -> Resource:
        """The size axis."""
        return next(iter(self.fronts.values())).size

    def _members_table(self) -> RenderableType:
        base = self.base.header.base_cost
        size = self.base_size
        table = plain_table(
            "network", "FLOPs", "params", "search loss", "search\naccuracy, %", "dominated\nby"
        )
        members = [(name, t) for name, front in self.fronts.items() for t in front.members]
        for name, trial in sorted(members, key=lambda item: size.of(item[1].cost)):
            by = self.dominated(name)[trial.number]
            shown = "" if not by else f"{by[0][0]} {by[0][1]}"
            if trial.evaluation is not None:
                cells = measure_cells(trial.cost, trial.evaluation.score, base)
                table.add_row(f"{name} {trial.number}", *cells, shown)
        return table

    def _reference_line(self) -> str:
        name = {"macs": "FLOPs", "latency": "predicted latency"}.get(self.base_size.name, "params")
        return (
            f"hypervolume: share of the box from 0 to the base network's {name} and a loss of"
            f" {self.reference[1]:.3f}; a network is named by its run and trial"
        )

    def _dominated_json(self, name: str) -> list[list[dict[str, Any]]]:
        return [
            [{"run": run, "trial": number} for run, number in by]
            for by in self.dominated(name).values()
        ]


def _dominates(first: Trial, second: Trial, size: Resource) -> bool:
    ours = size.of(first.cost), first.loss
    theirs = size.of(second.cost), second.loss
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def _require_comparable(first: str, one: Study, second: str, other: Study) -> None:
    if one.header.space_digest != other.header.space_digest:
        raise InputError(f"{first} and {second} are of different search spaces: not comparable")
    losses = [_base_loss(first, one), _base_loss(second, other)]
    if not math.isclose(*losses, rel_tol=SAME):
        raise InputError(
            f"{first} and {second} are of different base networks or search splits (base losses"
            f" {losses[0]:.4f} and {losses[1]:.4f}): not comparable"
        )


def _base_loss(name: str, study: Study) -> float:
    if not study.header.references:
        raise InputError(f"{name}: its study holds no base network to compare by")
    return study.header.base.search.loss
