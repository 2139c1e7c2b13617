"""A search and its baselines: what each spent, and how far it came; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from rich.table import Table

from evosearch.report.columns import (
    METRIC,
    SEARCH_ACCURACY,
    SEARCH_LOSS,
    NetworkColumn,
    metric_of,
    naming,
)
from evosearch.report.tables import Column, terminal_table
from evosearch.study.front import ParetoFront
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study


@final
@dataclass(frozen=True, kw_only=True)
class Searched:
    """A search, and how far it came.

    Attributes:
        name: what tables call it.
        study: its trials.
        front: its front.
        reference: the (size, loss) that hypervolume is measured from.
    """

    name: str
    study: Study
    front: ParetoFront
    reference: tuple[float, float]

    @property
    def hypervolume(self) -> float:
        """The share of the box under the reference that the front dominates."""
        return self.front.hypervolume(self.reference)

    @property
    def members(self) -> tuple[NamedNetwork, ...]:
        """The networks of the front, smallest first."""
        return tuple(NamedNetwork.of_trial(trial) for trial in self.front.members)

    @property
    def knee(self) -> int | None:
        """Number of the trial at the front's knee; None where the front is empty."""
        return self.front.knee.number if self.front.members else None


def searches_of(
    study: Study, front: ParetoFront, rivals: Mapping[str, Study]
) -> tuple[Searched, ...]:
    """Returns a search and then its baselines, all by the size of its front."""
    reference = reference_point(study, front)
    own = Searched(name=study.header.strategy, study=study, front=front, reference=reference)
    others = (
        Searched(name=name, study=rival, front=rival.front(front.size), reference=reference)
        for name, rival in rivals.items()
    )
    return (own, *others)


def reference_point(study: Study, front: ParetoFront) -> tuple[float, float]:
    """Returns the (size, loss) that hypervolume is measured from.

    The base network's size, and the largest loss among base, baselines and a tenfold base loss:
    fixed before the search, so hypervolumes of runs with the same header can be compared.
    """
    losses = [reference.search.loss for reference in study.header.references]
    return float(front.size.of(study.header.base_cost)), max(*losses, 10 * losses[0])


def searches_table(searches: tuple[Searched, ...]) -> Table:
    """Returns how a search compares with its baselines, and at how many full evaluations."""
    return terminal_table(naming(metric_of(searches[0].study), *SEARCH_COLUMNS), searches)


def _of_best(header: str, column: NetworkColumn) -> Column[Searched]:
    """Returns what a column says of the network of least loss; "" where the front is empty."""
    html = column.html or column.cell
    return Column(
        header=header,
        cell=lambda search: column.cell(search.members[-1]) if search.members else "",
        html=lambda search: html(search.members[-1]) if search.members else "",
    )


FULL_EVALUATIONS = Column[Searched](
    header="full evaluations",
    cell=lambda search: str(search.study.full_evaluations),
    json=lambda search: {"full_evaluations": search.study.full_evaluations},
)
HYPERVOLUME = Column[Searched](
    header="hypervolume",
    cell=lambda search: f"{search.hypervolume:.4f}",
    json=lambda search: {"hypervolume": search.hypervolume},
)
SEARCH_COLUMNS = (
    Column[Searched](header="search", cell=lambda search: search.name),
    FULL_EVALUATIONS,
    HYPERVOLUME,
    _of_best("least loss", SEARCH_LOSS),
    _of_best(f"{METRIC}, %", SEARCH_ACCURACY),
)
