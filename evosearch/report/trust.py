"""The trust report: how far a study's own rungs can be trusted; imported without torch."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from evosearch.report.tables import plain_table
from evosearch.study.rungtimes import Costlier, RungTimes
from evosearch.study.study import Study
from evosearch.study.trial import Rung
from evosearch.study.trust import MISLEADING, RungReport, rung_name, rung_reports

_SETTINGS = {
    Rung.TWO_STEP: "round_size",
    Rung.COMPENSATED: "compensated",
    Rung.PARTIAL: "survivors",
}
"""What to raise, so that more candidates get past a rung that misleads."""


def costlier_json(times: RungTimes | None) -> list[dict[str, Any]]:
    """Returns the rungs that a search left out as too costly, as JSON."""
    return [
        {**asdict(left), "rung": left.rung.name, "following": left.following.name}
        for left in (() if times is None else times.costlier)
    ]


def trust_json(study: Study) -> list[dict[str, Any]]:
    """Returns the report of every rung as JSON."""
    return [
        {**asdict(report), "rung": report.rung.name}
        for report in rung_reports(study.trials, study.header.resource)
    ]


def trust_table(study: Study) -> Table:
    """Returns candidates, time and rank correlation of every rung."""
    table = plain_table("rung", "candidates", "time, s", "Kendall tau with the next (pairs)")
    for report in rung_reports(study.trials, study.header.resource):
        tau = "" if report.tau is None else f"{report.tau:.2f} ({report.pairs})"
        seconds = "" if report.seconds is None else f"{report.seconds:.1f}"
        table.add_row(report.name, str(report.candidates), seconds, tau)
    return table


def trust_advice(study: Study, times: RungTimes | None) -> list[str]:
    """Returns a line for every rung that misleads, or was left out: which one, and why."""
    reports = rung_reports(study.trials, study.header.resource)
    lines = [_advice(report, study.header.strategy) for report in reports if report.misleads]
    return lines + [_left_out(left) for left in (() if times is None else times.costlier)]


def _left_out(left: Costlier) -> str:
    return (
        f"the rung {rung_name(left.rung)!r} is left out: at {left.seconds:.3g} s a candidate it"
        f" costs more than the next, {rung_name(left.following)!r}, at"
        f" {left.following_seconds:.3g} s"
    )


def _advice(report: RungReport, strategy: str) -> str:
    return (
        f"the rung {report.name!r} misleads: its Kendall tau with the next is"
        f" {report.tau:.2f}, under {MISLEADING}; let more candidates pass it"
        f" ([search.{strategy}] {_SETTINGS[report.rung]})"
    )
