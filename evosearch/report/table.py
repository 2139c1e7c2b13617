"""The front of a run, as rows, as JSON and as a table."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from evosearch.cost import Cost, format_count
from evosearch.front import ParetoFront
from evosearch.planning import Plan
from evosearch.study import Study
from evosearch.trial import Evaluation, Trial, TrialState


def front_json(study: Study, front: ParetoFront, rivals: Mapping[str, Study]) -> dict[str, Any]:
    """Returns a run's front and what it is compared with, as JSON.

    FLOPs are for one image; accuracies are shares of the search split, with standard errors.
    """
    base = study.header.base_cost
    trials = study.trials
    return {
        "strategy": study.header.strategy,
        "seed": study.header.seed,
        "size": front.size.value,
        "trials": len(trials),
        "failed": sum(trial.state is TrialState.FAIL for trial in trials),
        "repeated": sum(trial.duplicate_of is not None for trial in trials),
        "hypervolume": front.hypervolume(reference_point(study, front)),
        "references": [
            {"name": reference.name, **_measures(reference.cost, reference.evaluation, base)}
            for reference in study.header.references
        ],
        "baselines": {
            name: {
                "full_evaluations": full_evaluations(rival),
                "hypervolume": (own := rival.front(front.size)).hypervolume(
                    reference_point(study, front)
                ),
                "front": [trial_json(t, own, base) for t in own.members],
            }
            for name, rival in rivals.items()
        },
        "front": [trial_json(trial, front, base) for trial in front.members],
    }


def reference_point(study: Study, front: ParetoFront) -> tuple[float, float]:
    """Returns the (size, loss) that hypervolume is measured from.

    The base network's size, and the largest loss among base, baselines and a tenfold base loss:
    fixed before the search, so hypervolumes of runs with the same header can be compared.
    """
    losses = [reference.evaluation.loss for reference in study.header.references]
    return float(getattr(study.header.base_cost, front.size.value)), max(*losses, 10 * losses[0])


def trial_json(trial: Trial, front: ParetoFront, base: Cost) -> dict[str, Any]:
    """Returns one evaluated trial as JSON."""
    assert trial.evaluation is not None
    return {
        "trial": trial.number,
        "knee": trial.number == front.knee.number,
        **_measures(trial.cost, trial.evaluation, base),
        "widths": trial.mask.widths,
    }


def _sizes(cost: Cost, base: Cost) -> dict[str, Any]:
    ratios = cost.relative_to(base)
    return {
        "flops": cost.flops,
        "flops_ratio": ratios["macs"],
        "params": cost.params,
        "params_ratio": ratios["params"],
    }


def _measures(cost: Cost, evaluation: Evaluation, base: Cost) -> dict[str, Any]:
    return {
        **_sizes(cost, base),
        "loss": evaluation.loss,
        "loss_se": evaluation.loss_se,
        "accuracy": evaluation.accuracy,
        "accuracy_se": evaluation.accuracy_se,
    }


def front_table(study: Study, front: ParetoFront) -> Table:
    """Returns a run's front as a table, smallest network first, references above it."""
    base = study.header.base_cost
    table = plain_table("network", "FLOPs", "params", "search loss", "search accuracy, %", "")
    for reference in study.header.references:
        table.add_row(reference.name, *_cells(reference.cost, reference.evaluation, base), "")
    table.add_section()
    for trial in front.members:
        if trial.evaluation is not None:
            knee = "knee" if trial.number == front.knee.number else ""
            cells = _cells(trial.cost, trial.evaluation, base)
            table.add_row(f"trial {trial.number}", *cells, knee)
    return table


def rivals_table(study: Study, rivals: Mapping[str, Study]) -> Table:
    """Returns how a search compares with its baselines, at as many full evaluations each."""
    table = plain_table("search", "full evaluations", "hypervolume", "least loss", "accuracy, %")
    for name, own in {study.header.strategy: study, **rivals}.items():
        front = own.front()
        volume = f"{front.hypervolume(reference_point(study, front)):.4f}"
        best = front.best().evaluation if front.members else None
        cells = (
            ("", "")
            if best is None
            else (
                f"{best.loss:.3f} ±{best.loss_se:.3f}",
                percent(best.accuracy, best.accuracy_se),
            )
        )
        table.add_row(name, str(full_evaluations(own)), volume, *cells)
    return table


def full_evaluations(study: Study) -> int:
    """Returns how many trials were scored on the whole search split."""
    return sum(t.is_complete and t.duplicate_of is None for t in study.trials)


def plan_table(study: Study, plan: Plan) -> Table:
    """Returns one plan as a table; what is predicted is said to be."""
    base = study.header.base_cost
    if plan.evaluation is not None:
        table = plain_table("network", "FLOPs", "params", "search loss", "search accuracy, %")
        table.add_row(plan.name, *_cells(plan.cost, plan.evaluation, base))
        return table
    table = plain_table("network", "FLOPs", "params", "search loss, predicted")
    ratios = plan.cost.relative_to(base)
    table.add_row(
        plan.name,
        _size(plan.cost.flops, ratios["macs"]),
        _size(plan.cost.params, ratios["params"]),
        "unknown" if plan.predicted_loss is None else f"{plan.predicted_loss:.3f}",
    )
    return table


def plan_json(study: Study, plan: Plan) -> dict[str, Any]:
    """Returns one plan as JSON."""
    base = study.header.base_cost
    measures = (
        _sizes(plan.cost, base)
        if plan.evaluation is None
        else _measures(plan.cost, plan.evaluation, base)
    )
    return {
        "plan": plan.name,
        "measured": plan.evaluation is not None,
        "predicted_loss": plan.predicted_loss,
        **measures,
        "widths": plan.mask.widths,
    }


def networks_table(card: Mapping[str, Any]) -> Table:
    """Returns the named networks of an artifact's card, each measured once on test."""
    table = plain_table("network", "FLOPs", "params", "search accuracy, %", "test accuracy, %")
    for entry in card["networks"]:
        sizes = ("flops", "macs"), ("params", "params")
        table.add_row(
            entry["name"],
            *(_size(entry[count], entry["ratios"][ratio]) for count, ratio in sizes),
            *(
                percent(entry[split]["accuracy"], entry[split]["accuracy_se"])
                for split in ("search", "test")
            ),
        )
    return table


def plain_table(first: str, *names: str) -> Table:
    """Returns an empty table; all columns but the first are for numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _cells(cost: Cost, evaluation: Evaluation, base: Cost) -> tuple[str, ...]:
    ratios = cost.relative_to(base)
    return (
        _size(cost.flops, ratios["macs"]),
        _size(cost.params, ratios["params"]),
        f"{evaluation.loss:.3f} ±{evaluation.loss_se:.3f}",
        percent(evaluation.accuracy, evaluation.accuracy_se),
    )


def _size(count: int, ratio: float) -> str:
    return f"{format_count(count)} {ratio:6.1%}"


def percent(share: float, standard_error: float) -> str:
    """Returns a share and its standard error in percent, without the sign."""
    return f"{100 * share:.2f} ±{100 * standard_error:.2f}"
