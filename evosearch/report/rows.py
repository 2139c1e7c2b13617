"""The trials of a study as flat rows, for data frames and spreadsheets."""

from typing import Any

from evosearch.study.study import Study
from evosearch.study.trial import Trial

MEASURES = ("loss", "loss_se", "accuracy", "accuracy_se")


def trial_rows(study: Study) -> list[dict[str, Any]]:
    """Returns a flat dict for every trial, all with the same keys.

    FLOPs and params are for one image; accuracies and ratios are shares; losses are in nats, and
    None where a trial was not scored on the whole search split.
    """
    members = {trial.number for trial in study.front().members}
    return [_row(trial, study, trial.number in members) for trial in study.trials]


def _row(trial: Trial, study: Study, in_front: bool) -> dict[str, Any]:
    ratios = trial.cost.relative_to(study.header.base_cost)
    full = trial.evaluation.score if trial.is_complete and trial.evaluation else None
    return {
        "trial": trial.number,
        "generation": trial.generation,
        "state": trial.state.value,
        "rung": trial.steps[-1].rung.name.lower() if trial.steps else None,
        "in_front": in_front,
        "duplicate_of": trial.duplicate_of,
        "error": trial.error,
        "flops": trial.cost.flops,
        "flops_ratio": ratios["macs"],
        "params": trial.cost.params,
        "params_ratio": ratios["params"],
        **{name: None if full is None else getattr(full, name) for name in MEASURES},
        "seconds": sum(step.seconds for step in trial.steps),
        **{f"width {group}": width for group, width in trial.mask.widths.items()},
    }
