"""The columns of networks: heading, text, JSON and HTML of each thing that is said of one.

What a column needs beside the network (the base network's cost, the ties of a front) is bound
where the column is made. `README.md` has the steps to add one. Imported without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from evosearch.report.tables import Column
from evosearch.space.cost import Cost, format_time
from evosearch.space.resources import RESOURCES, Resource
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import ACCURACY, Difference, Score
from evosearch.study.study import Study
from evosearch.study.timing import Timing

METRIC = "{metric}"
"""What stands in headings for the name of the task's metric."""

NetworkColumn = Column[NamedNetwork]
Note = TypeVar("Note")
Row = TypeVar("Row")


def measured_columns(*studies: Study) -> tuple[NetworkColumn, ...]:
    """Returns what is said of every network that was measured on the search split.

    Args:
        studies: of one base network; each may limit other resources.
    """
    return (*size_columns(*studies), *naming(metric_of(studies[0]), *MEASURED))


def naming(metric: str, *columns: Column[Row]) -> tuple[Column[Row], ...]:
    """Returns columns whose headings say what the task's metric is called."""
    return tuple(replace(own, header=own.header.replace(METRIC, metric)) for own in columns)


def metric_of(study: Study) -> str:
    """Returns what the metric of a study is called."""
    references = study.header.references
    return references[0].search.metric if references else ACCURACY.name


def size_columns(*studies: Study) -> tuple[NetworkColumn, ...]:
    """Returns a column for each resource that matters to studies of one base network.

    Those are FLOPs and params, what a budget limits, and what a run has a model of.
    """
    base = studies[0].header.base_cost
    limited = {name for study in studies for name in study.budget.bounds}
    return tuple(
        size_column(resource, base)
        for name, resource in RESOURCES.items()
        if name in limited or (resource.is_usual and resource.of(base))
    )


def size_column(resource: Resource, base: Cost) -> NetworkColumn:
    """Returns what networks take of a resource, also as a share of the base network's."""

    def amount(network: NamedNetwork) -> str:
        return resource.shown(resource.of(network.cost))

    def ratio(network: NamedNetwork) -> float:
        return resource.of(network.cost) / resource.of(base)

    return Column(
        header=resource.heading.replace(" ", "\n"),
        cell=lambda network: f"{amount(network)} {ratio(network):6.1%}",
        html=lambda network: f"{amount(network)} ({100 * ratio(network):.2f} %)",
        json=lambda network: {
            resource.key: resource.to_json(network.cost),
            resource.ratio_key: ratio(network),
        },
    )


def trial_column(knee: int | None) -> NetworkColumn:
    """Returns the names of networks, one of them the knee; JSON has their trials' numbers."""

    def is_knee(network: NamedNetwork) -> bool:
        return network.trial is not None and network.trial == knee

    return Column(
        header="network",
        cell=lambda network: f"{network.name}{', knee' if is_knee(network) else ''}",
        html=lambda network: f"{network.name}{' (knee)' if is_knee(network) else ''}",
        json=lambda network: {"trial": network.trial, "knee": is_knee(network)},
    )


def above_base_column(differences: Mapping[int, Difference]) -> NetworkColumn:
    """Returns by how much trials' metrics exceed the base network's, by trial number."""

    def cell(network: NamedNetwork) -> str:
        above = _note(differences, network)
        if above is None:
            return ""
        low, high = above.interval
        return f"{100 * above.mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"

    def json(network: NamedNetwork) -> dict[str, Any]:
        above = _note(differences, network)
        return {
            "accuracy_above_base": None if above is None else above.mean,
            "accuracy_above_base_interval": None if above is None else list(above.interval),
        }

    return Column(header="above base, points\n(95 % interval)", cell=cell, json=json)


def made_by(study: Study) -> str:
    """Returns in a word what the finished networks of a run came of."""
    return "trained" if study.header.is_training else "distilled"


def finished_column(finished: Mapping[str, NamedNetwork], made: str) -> NetworkColumn:
    """Returns the test scores of finished networks.

    Args:
        finished: plan -> its network.
        made: what they came of, in a word.
    """

    def test(network: NamedNetwork) -> Score | None:
        return finished.get(network.name, network).test

    return Column(
        header=f"test {METRIC}, %\n{made}",
        cell=lambda network: _accuracy(test(network)),
        json=lambda network: {"test_distilled": _score_json(test(network))},
    )


def tied_column(ties: Mapping[int, Sequence[int]], order: Sequence[int]) -> NetworkColumn:
    """Returns which smaller trials each is tied with; a terminal has the smallest of them.

    Args:
        ties: trial number -> the trials that it is tied with, smallest first.
        order: trial numbers, smallest first.
    """

    def smaller(network: NamedNetwork) -> list[str]:
        tied = _note(ties, network) or ()
        return [str(n) for n in order if n in tied and order.index(n) < order.index(network.trial)]

    def json(network: NamedNetwork) -> dict[str, Any]:
        tied = _note(ties, network)
        return {"tied": None if tied is None else list(tied)}

    return Column(
        header="tied\nwith",
        cell=lambda network: "".join(smaller(network)[:1]),
        html=lambda network: ", ".join(smaller(network)),
        json=json,
    )


def dominated_column(by: Mapping[str, Sequence[tuple[str, int]]]) -> NetworkColumn:
    """Returns who dominates each network; a terminal has the first.

    Args:
        by: network -> run and trial number of each that dominates it.
    """
    return Column(
        header="dominated\nby",
        cell=lambda network: "".join(f"{run} {trial}" for run, trial in by[network.name][:1]),
        json=lambda network: {
            "dominated_by": [{"run": run, "trial": trial} for run, trial in by[network.name]]
        },
    )


def _note(notes: Mapping[int, Note], network: NamedNetwork) -> Note | None:
    return None if network.trial is None else notes.get(network.trial)


def _search(network: NamedNetwork) -> Score | None:
    return None if network.evaluation is None else network.evaluation.score


def _loss(network: NamedNetwork, digits: int) -> str:
    score = _search(network)
    return "" if score is None else f"{score.loss:.{digits}f} ±{score.loss_se:.{digits}f}"


def _accuracy(score: Score | None) -> str:
    return "" if score is None else score.accuracy_text


def _accuracy_json(score: Score | None) -> dict[str, Any]:
    low, high = (None, None) if score is None else score.accuracy_interval
    return {
        "metric": None if score is None else score.metric,
        "accuracy": None if score is None else score.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
    }


def _score_json(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else {**asdict(score), **_accuracy_json(score)}


def _fields(score: Score | None, *names: str) -> dict[str, float | None]:
    return {name: None if score is None else getattr(score, name) for name in names}


def _timing_json(timing: Timing | None) -> dict[str, Any] | None:
    return None if timing is None else asdict(timing)


def _latency(network: NamedNetwork) -> str:
    timing = network.timing
    if timing is None:
        return ""
    median, low, high = (format_time(1e12 * x) for x in (timing.seconds, timing.low, timing.high))
    return f"{median} ({low} to {high})"


def _latency_ratio(network: NamedNetwork) -> str:
    timing = network.timing
    if timing is None:
        return ""
    median, low, high = (100 * x for x in (timing.ratio, timing.ratio_low, timing.ratio_high))
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


NAME = Column[NamedNetwork](
    header="network",
    cell=lambda network: network.name,
    json=lambda network: {"name": network.name},
)
SEARCH_LOSS = Column[NamedNetwork](
    header="search loss",
    cell=lambda network: _loss(network, 3),
    html=lambda network: _loss(network, 4),
    json=lambda network: _fields(_search(network), "loss", "loss_se"),
)
SEARCH_ACCURACY = Column[NamedNetwork](
    header=f"search {METRIC}, %\n(95 % interval)",
    cell=lambda network: _accuracy(_search(network)),
    json=lambda network: _accuracy_json(_search(network)),
)
MEASURED: tuple[NetworkColumn, ...] = (SEARCH_LOSS, SEARCH_ACCURACY)
"""What is said of every network that was measured on the search split, beside its sizes."""
PREDICTED_LOSS = Column[NamedNetwork](
    header="search loss, predicted",
    cell=lambda network: (
        "unknown" if network.prediction is None else f"{network.prediction.loss:.3f}"
    ),
    json=lambda network: {
        "predicted_loss": None if network.prediction is None else network.prediction.loss
    },
)
TEST_ACCURACY = Column[NamedNetwork](
    header=f"test {METRIC}, %\n(95 % interval)",
    cell=lambda network: _accuracy(network.test),
)
LATENCY = Column[NamedNetwork](
    header="latency of a batch\n(95 % interval)",
    cell=_latency,
    json=lambda network: {"latency": _timing_json(network.timing)},
)
LATENCY_RATIO = Column[NamedNetwork](
    header="of the base network's, %\n(95 % interval)",
    cell=_latency_ratio,
)
