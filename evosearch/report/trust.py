"""The trust report: how far a study's own rungs can be trusted; imported without torch."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from evosearch.report.tables import plain_table
from evosearch.study.study import Study
from evosearch.study.trial import Rung
from evosearch.study.trust import MISLEADING, RungReport, rung_reports

_SETTINGS = {
    Rung.TWO_STEP: "round_size",
    Rung.COMPENSATED: "compensated",
    Rung.PARTIAL: "survivors",
}
"""What to raise, so that more candidates get past a rung that misleads."""


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


def trust_advice(study: Study) -> list[str]:
    """Returns a line for every rung that misleads: which one, and what to set."""
    reports = rung_reports(study.trials, study.header.resource)
    return [_advice(report, study.header.strategy) for report in reports if report.misleads]


def _advice(report: RungReport, strategy: str) -> str:
    return (
        f"the rung {report.name!r} misleads: its Kendall tau with the next is"
        f" {report.tau:.2f}, under {MISLEADING}; let more candidates pass it"
        f" ([search.{strategy}] {_SETTINGS[report.rung]})"
    )
