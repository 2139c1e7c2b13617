"""The trials of a study as flat rows, for data frames and spreadsheets; without torch."""

from typing import Any

from evosearch.report.columns import measured_columns
from evosearch.report.tables import json_object
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Trial


def trial_rows(study: Study) -> list[dict[str, Any]]:
    """Returns a flat dict for every trial, all with the same keys.

    FLOPs and params are for one image, a predicted latency is of one batch; accuracies and
    ratios are shares; losses are in nats, and None where a trial was not scored on the whole
    search split.
    """
    members = {trial.number for trial in study.front().members}
    columns = measured_columns(study)
    return [
        {
            **_progress(trial),
            "in_front": trial.number in members,
            "duplicate_of": trial.duplicate_of,
            "error": trial.error,
            **json_object(columns, NamedNetwork.of_trial(trial)),
            "seconds": sum(step.seconds for step in trial.steps),
            **{f"width {group}": width for group, width in trial.mask.widths.items()},
        }
        for trial in study.trials
    ]


def _progress(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "generation": trial.generation,
        "state": trial.state.value,
        "rung": trial.steps[-1].rung.name.lower() if trial.steps else None,
    }
