"""The front of a run, as rows, as JSON and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from rich import box
from rich.table import Table

from evosearch.space.cost import Cost, format_count
from evosearch.study.front import ParetoFront
from evosearch.study.scores import Difference, Score
from evosearch.study.study import Study
from evosearch.study.trial import Trial, TrialState


@final
@dataclass(frozen=True, kw_only=True)
class FrontNotes:
    """What is known of the members of a front beyond their trials.

    Attributes:
        tied: trial number -> the members that it is tied with, smallest first.
        above_base: trial number -> by how much its accuracy exceeds the base network's, a share.
        tested: plan ("trial 17") -> entry of its distilled network on an artifact's card.
    """

    tied: Mapping[int, Sequence[int]] = field(default_factory=dict)
    above_base: Mapping[int, Difference] = field(default_factory=dict)
    tested: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def front_json(
    study: Study, front: ParetoFront, rivals: Mapping[str, Study], notes: FrontNotes
) -> dict[str, Any]:
    """Returns a run's front and what it is compared with, as JSON.

    FLOPs are for one image; accuracies are shares of the search split, with standard errors.
    """
    base = study.header.base_cost
    trials = study.trials
    return {
        "strategy": study.header.strategy,
        "seed": study.header.seed,
        "size": front.size.name,
        "trials": len(trials),
        "failed": sum(trial.state is TrialState.FAIL for trial in trials),
        "repeated": study.repeated,
        "hypervolume": front.hypervolume(reference_point(study, front)),
        "references": [
            {"name": reference.name, **measures_json(reference.cost, reference.search, base)}
            for reference in study.header.references
        ],
        "baselines": {
            name: {
                "full_evaluations": rival.full_evaluations,
                "hypervolume": (own := rival.front(front.size)).hypervolume(
                    reference_point(study, front)
                ),
                "front": [trial_json(t, own, base) for t in own.members],
            }
            for name, rival in rivals.items()
        },
        "front": [
            {**trial_json(trial, front, base), **_notes_json(trial.number, notes)}
            for trial in front.members
        ],
        "distilled": {plan: dict(entry) for plan, entry in notes.tested.items()},
    }


def _notes_json(number: int, notes: FrontNotes) -> dict[str, Any]:
    above = notes.above_base.get(number)
    tested = notes.tested.get(f"trial {number}")
    return {
        "tied": list(notes.tied[number]) if number in notes.tied else None,
        "accuracy_above_base": None if above is None else above.mean,
        "accuracy_above_base_interval": None if above is None else list(above.interval),
        "test_distilled": None if tested is None else dict(tested["test"]),
    }


def reference_point(study: Study, front: ParetoFront) -> tuple[float, float]:
    """Returns the (size, loss) that hypervolume is measured from.

    The base network's size, and the largest loss among base, baselines and a tenfold base loss:
    fixed before the search, so hypervolumes of runs with the same header can be compared.
    """
    losses = [reference.search.loss for reference in study.header.references]
    return float(front.size.of(study.header.base_cost)), max(*losses, 10 * losses[0])


def trial_json(trial: Trial, front: ParetoFront, base: Cost) -> dict[str, Any]:
    """Returns one evaluated trial as JSON."""
    assert trial.evaluation is not None
    return {
        "trial": trial.number,
        "knee": trial.number == front.knee.number,
        **measures_json(trial.cost, trial.evaluation.score, base),
        "widths": trial.mask.widths,
    }


def sizes_json(cost: Cost, base: Cost) -> dict[str, Any]:
    """Returns a cost as JSON, also as shares of the base network's."""
    ratios = cost.relative_to(base)
    return {
        "flops": cost.flops,
        "flops_ratio": ratios["macs"],
        "params": cost.params,
        "params_ratio": ratios["params"],
    }


def measures_json(cost: Cost, score: Score, base: Cost) -> dict[str, Any]:
    """Returns what a network costs and is worth as JSON."""
    return {
        **sizes_json(cost, base),
        "loss": score.loss,
        "loss_se": score.loss_se,
        "accuracy": score.accuracy,
        "accuracy_se": score.accuracy_se,
    }


def front_table(study: Study, front: ParetoFront, notes: FrontNotes) -> Table:
    """Returns a run's front as a table, smallest network first, references above it."""
    base = study.header.base_cost
    names = ["FLOPs", "params", "search loss", "search\naccuracy, %"]
    names += ["above base, points\n(95 % interval)"] if notes.above_base else []
    names += ["test accuracy, %,\ndistilled"] if notes.tested else []
    table = plain_table("network", *names, "tied\nwith")
    for reference in study.header.references:
        table.add_row(reference.name, *measure_cells(reference.cost, reference.search, base))
    table.add_section()
    order = [trial.number for trial in front.members]
    for trial in front.members:
        if trial.evaluation is None:
            continue
        cells = measure_cells(trial.cost, trial.evaluation.score, base)
        if notes.above_base:
            cells += (_above(notes.above_base.get(trial.number)),)
        if notes.tested:
            cells += (_tested(notes.tested.get(f"trial {trial.number}")),)
        smaller = order[: order.index(trial.number)]
        tied = [str(n) for n in notes.tied.get(trial.number, ()) if n in smaller]
        knee = ", knee" if trial.number == front.knee.number else ""
        table.add_row(f"trial {trial.number}{knee}", *cells, *tied[:1])
    others = [entry for plan, entry in notes.tested.items() if plan not in _names(order)]
    for entry in others:
        table.add_row(*_entry_cells(entry), *([""] if notes.above_base else []), _tested(entry))
    return table


def _names(numbers: Sequence[int]) -> list[str]:
    return [f"trial {number}" for number in numbers]


def _above(difference: Difference | None) -> str:
    if difference is None:
        return ""
    low, high = difference.interval
    return f"{100 * difference.mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def _tested(entry: Mapping[str, Any] | None) -> str:
    return (
        "" if entry is None else percent(entry["test"]["accuracy"], entry["test"]["accuracy_se"])
    )


def _entry_cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    search = entry["search"]
    return (
        entry["name"],
        size_cell(entry["flops"], entry["ratios"]["macs"]),
        size_cell(entry["params"], entry["ratios"]["params"]),
        f"{search['loss']:.3f} ±{search['loss_se']:.3f}",
        percent(search["accuracy"], search["accuracy_se"]),
    )


def rivals_table(study: Study, rivals: Mapping[str, Study]) -> Table:
    """Returns how a search compares with its baselines, and at how many full evaluations."""
    table = plain_table("search", "full evaluations", "hypervolume", "least loss", "accuracy, %")
    for name, own in {study.header.strategy: study, **rivals}.items():
        front = own.front()
        volume = f"{front.hypervolume(reference_point(study, front)):.4f}"
        best = best_score(front)
        cells = (
            ("", "")
            if best is None
            else (
                f"{best.loss:.3f} ±{best.loss_se:.3f}",
                percent(best.accuracy, best.accuracy_se),
            )
        )
        table.add_row(name, str(own.full_evaluations), volume, *cells)
    return table


def best_score(front: ParetoFront) -> Score | None:
    """Returns the score of the trial of least loss; None where the front is empty."""
    best = front.best().evaluation if front.members else None
    return None if best is None else best.score


def plain_table(first: str, *names: str) -> Table:
    """Returns an empty table; all columns but the first are for numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table


def measure_cells(cost: Cost, score: Score, base: Cost) -> tuple[str, ...]:
    """Returns what a network costs and is worth, as four cells."""
    ratios = cost.relative_to(base)
    return (
        size_cell(cost.flops, ratios["macs"]),
        size_cell(cost.params, ratios["params"]),
        f"{score.loss:.3f} ±{score.loss_se:.3f}",
        percent(score.accuracy, score.accuracy_se),
    )


def size_cell(count: int, ratio: float) -> str:
    """Returns a count, and its share of the base network's."""
    return f"{format_count(count)} {ratio:6.1%}"


def percent(share: float, standard_error: float) -> str:
    """Returns a share and its standard error in percent, without the sign."""
    return f"{100 * share:.2f} ±{100 * standard_error:.2f}"
