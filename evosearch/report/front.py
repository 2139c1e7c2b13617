"""The front of a run and what it is compared with, as JSON and as a table; without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from rich.table import Table

from evosearch.export.card import network_json
from evosearch.report.columns import (
    NAME,
    NetworkColumn,
    above_base_column,
    finished_column,
    made_by,
    measured_columns,
    metric_of,
    naming,
    tied_column,
    trial_column,
)
from evosearch.report.notebook import as_html, as_text
from evosearch.report.searches import SEARCH_COLUMNS, Searched
from evosearch.report.tables import json_object, terminal_table
from evosearch.study.front import ParetoFront
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Difference
from evosearch.study.study import Study
from evosearch.study.trial import TrialState


@final
@dataclass(frozen=True, kw_only=True)
class FrontNotes:
    """What is known of the members of a front beyond their trials.

    Attributes:
        tied: trial number -> the members that it is tied with, smallest first.
        above_base: trial number -> by how much its accuracy exceeds the base network's, a share.
        distilled: plan ("trial 17") -> its finished network, measured on test.
    """

    tied: Mapping[int, Sequence[int]] = field(default_factory=dict)
    above_base: Mapping[int, Difference] = field(default_factory=dict)
    distilled: Mapping[str, NamedNetwork] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Front(ParetoFront):
    """The front of a study, which a prompt and a notebook show as a table.

    Attributes:
        study: whose front it is.
    """

    study: Study

    @classmethod
    def of(cls, study: Study) -> "Front":
        """Returns the front so far, in the size that the study minimises."""
        own = study.front()
        return cls(trials=own.trials, budget=own.budget, size=own.size, study=study)

    def __repr__(self) -> str:
        return as_text(self.table())

    def _repr_html_(self) -> str:
        return as_html(self.table())

    def table(self) -> Table:
        """Returns the base network, and then the members, smallest first."""
        knee = self.knee.number if self.members else None
        columns = (trial_column(knee), *measured_columns(self.study))
        members = [NamedNetwork.of_trial(trial) for trial in self.members]
        return terminal_table(columns, self.study.header.references[:1], members)


def front_columns(search: Searched, notes: FrontNotes) -> tuple[NetworkColumn, ...]:
    """Returns what is said of the members of a front."""
    return (
        trial_column(search.knee),
        *measured_columns(search.study),
        above_base_column(notes.above_base),
        *naming(metric_of(search.study), finished_column(notes.distilled, made_by(search.study))),
        tied_column(notes.tied, [trial.number for trial in search.front.members]),
    )


def front_json(searches: Sequence[Searched], notes: FrontNotes) -> dict[str, Any]:
    """Returns a run's front and what it is compared with, as JSON.

    FLOPs are for one image, a latency is of one batch; accuracies are shares of the search split,
    with standard errors.

    Args:
        searches: the run's, and then its baselines.
        notes: on the members of its front.
    """
    own, *baselines = searches
    study, measured = own.study, measured_columns(own.study)
    return {
        "strategy": study.header.strategy,
        "seed": study.header.seed,
        "size": own.front.size.name,
        "trials": len(study.trials),
        "failed": sum(trial.state is TrialState.FAIL for trial in study.trials),
        "repeated": study.repeated,
        "hypervolume": own.hypervolume,
        "references": [json_object((NAME, *measured), n) for n in study.header.references],
        "baselines": {
            search.name: {
                **json_object(SEARCH_COLUMNS, search),
                "front": members_json((trial_column(search.knee), *measured), search.members),
            }
            for search in baselines
        },
        "front": members_json(front_columns(own, notes), own.members),
        "distilled": {
            plan: network_json(network, study.header.base_cost)
            for plan, network in notes.distilled.items()
        },
    }


def members_json(
    columns: Sequence[NetworkColumn], members: Sequence[NamedNetwork]
) -> list[dict[str, Any]]:
    """Returns the members of a front as JSON: what the columns say, and the widths."""
    return [{**json_object(columns, n), "widths": n.mask.widths} for n in members]


def front_table(search: Searched, notes: FrontNotes) -> Table:
    """Returns a run's front as a table, smallest network first, references above it.

    Finished networks that are of no member's plan stand below.
    """
    names = {network.name for network in search.members}
    others = [network for plan, network in notes.distilled.items() if plan not in names]
    references = search.study.header.references
    return terminal_table(front_columns(search, notes), references, [*search.members, *others])
