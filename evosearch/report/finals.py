"""The finals of a run: how each network went, what the last is worth, and whether scores tell."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table

from evosearch.report.columns import (
    NAME,
    SEARCH_ACCURACY,
    SEARCH_LOSS,
    TEST_ACCURACY,
    NetworkColumn,
    naming,
    size_columns,
)
from evosearch.report.tables import Column, terminal_table
from evosearch.study.finals import Finalist, Finals
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study


def finals_table(study: Study, finals: Finals) -> Table:
    """Returns the finalists: before training, after as much of it as each had, and the test."""
    tested = finals.finalists[finals.winner]

    def network(own: Finalist) -> NamedNetwork:
        return replace(own.network, test=finals.test if own is tested else None)

    def plan(own: Finalist) -> NamedNetwork:
        return own.plan

    columns = (
        _of(NAME, plan),
        *(_of(column, plan) for column in size_columns(study)),
        _of(replace(SEARCH_LOSS, header="search loss\nuntrained"), plan),
        Column[Finalist](header="epochs", cell=lambda own: str(own.epochs)),
        _of(SEARCH_LOSS, network),
        *naming(finals.test.metric, _of(SEARCH_ACCURACY, network), _of(TEST_ACCURACY, network)),
    )
    return terminal_table(columns, finals.finalists)


def finals_lines(finals: Finals) -> list[str]:
    """Returns in words which network won, what the search gave, and whether its scores told."""
    control, rival = finals.finalists[0].plan.name, finals.finalists[finals.rival].plan.name
    lines = [
        f"finals at {finals.at}: {finals.network.name}, is the last of"
        f" {len(finals.finalists)} networks; test {finals.test.metric}"
        f" {finals.test.accuracy_text} %;"
        f" {finals.image_macs:.3g} image-MACs"
    ]
    against = f"{rival} against {control}, after the same training"
    if finals.gain is None:
        reason = (
            f"{finals.test.metric} is of all images together, which no exact bound is for"
            if finals.test.pooled
            else "there are no [data] confirmation images"
        )
        lines.append(f"{against}: not confirmed, as {reason}")
    else:
        shown = "" if finals.gain.is_shown else "; no difference is shown"
        lines.append(f"{against}: {finals.gain}{shown}")
    if finals.confirmed is not None:
        lines.append(f"{finals.network.name} {finals.confirmed}")
    return [*lines, _telling_line(finals)]


def finals_json(finals: Finals) -> dict[str, Any]:
    """Returns what finals came to, as JSON."""
    telling, gain = finals.telling, finals.gain
    return {
        "at": finals.at,
        "epochs": finals.epochs,
        "finalists": [{"name": own.plan.name, "epochs": own.epochs} for own in finals.finalists],
        "winner": finals.network.name,
        "gain": None if gain is None else {**asdict(gain), "mean": gain.mean},
        "telling": None
        if telling is None
        else {**asdict(telling), "interval": list(telling.interval), "epoch": finals.compared_at},
        "text": finals_lines(finals),
    }


def _telling_line(finals: Finals) -> str:
    """Returns whether the search's score tells which networks train well."""
    epoch = finals.compared_at
    if epoch is None:
        return "whether the search's score tells takes three finalists or more"
    after = f"after {epoch} of {finals.epochs} epochs"
    if finals.telling is None:
        return f"no rank correlation {after}: the finalists' scores or accuracies are all the same"
    return (
        "rank correlation (Spearman's) of the search's score with the search"
        f" {finals.test.metric} {after}: {finals.telling}"
    )


def _of(column: NetworkColumn, network: Callable[[Finalist], NamedNetwork]) -> Column[Finalist]:
    """Returns what a column says of a network of each finalist."""
    return Column(header=column.header, cell=lambda own: column.cell(network(own)))
