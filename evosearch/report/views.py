"""Views: what is found, as JSON for programs and rendered for people; imported without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from rich.console import Group, RenderableType

from evosearch.errors import InputError
from evosearch.report.inspection import discovery_json, discovery_tables
from evosearch.report.networks import plan_json, plan_table
from evosearch.report.notebook import as_html, as_text
from evosearch.space.space import SearchSpace
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study

if TYPE_CHECKING:
    from evosearch.latency.model import LatencyModel
    from evosearch.run.spacefile import Traced
    from evosearch.run.timedfront import TimedFront
    from evosearch.surgery.discovery import Discovery


class View(Protocol):
    """Something to look at: a prompt shows it as text, a notebook in HTML."""

    def __repr__(self) -> str:
        return as_text(self.render())

    def _repr_html_(self) -> str:
        return as_html(self.render())

    def to_json(self) -> dict[str, Any]:
        """Returns it for programs."""
        ...

    def render(self) -> RenderableType:
        """Returns it for people."""
        ...


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class PlanView(View):
    """One plan of a run; see `View`.

    Attributes:
        study: of the run.
        plan: measured, or predicted.
    """

    study: Study
    plan: NamedNetwork

    def to_json(self) -> dict[str, Any]:
        """See `View.to_json`."""
        return plan_json(self.study, self.plan)

    def render(self) -> RenderableType:
        """See `View.render`."""
        table = plan_table(self.study, self.plan)
        if self.plan.evaluation is not None:
            return table
        return Group(table, "predicted from the trials; --evaluate measures it")


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class TimedFrontView(View):
    """A front by its measured latency; see `View`.

    Attributes:
        study: of the run.
        timed: its networks with their timings.
    """

    study: Study
    timed: "TimedFront"

    def to_json(self) -> dict[str, Any]:
        """See `View.to_json`."""
        from evosearch.report.latency import timed_front_json

        return timed_front_json(self.study, self.timed)

    def render(self) -> RenderableType:
        """See `View.render`."""
        from evosearch.report.latency import timed_front_table

        return timed_front_table(self.study, self.timed)

    def plot(self, path: Path) -> None:
        """Writes it as a picture (PNG)."""
        from evosearch.report.latency import plot_timed_front

        plot_timed_front(self.timed, path)


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class Inspection(View):
    """A search space with its proof; see `View`.

    Attributes:
        discovery: the space, what was proven of each group, and what is frozen.
        traced: what the file says of the space that it was written with, if anything.
        path: of the space file.
    """

    discovery: "Discovery"
    traced: "Traced | None"
    path: Path

    def to_json(self) -> dict[str, Any]:
        """See `View.to_json`."""
        return discovery_json(self.discovery)

    def render(self) -> RenderableType:
        """See `View.render`."""
        return discovery_tables(self.discovery)

    def require_as_traced(self) -> None:
        """Checks that the model still has the space that the file was written with.

        Raises:
            InputError: it has another one now.
        """
        if self.traced is None:
            return
        try:
            self.traced.require(self.discovery.space)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ProfileView(View):
    """A latency profile; see `View`.

    Attributes:
        model: what predicts latency here.
        space: the space that it was fitted on, with its terms.
    """

    model: "LatencyModel"
    space: SearchSpace

    def to_json(self) -> dict[str, Any]:
        """See `View.to_json`."""
        return self.model.to_json()

    def render(self) -> RenderableType:
        """See `View.render`."""
        from evosearch.report.latency import profile_summary

        return profile_summary(self.model, self.space)
