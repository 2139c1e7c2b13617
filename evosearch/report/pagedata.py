"""The data of a run's HTML page beyond the JSON of `evosearch pareto`; without torch.

Tables and texts come with their cells written out, from the same columns as everywhere else.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from evosearch.report.columns import (
    NAME,
    TEST_ACCURACY,
    made_by,
    measured_columns,
    metric_of,
    naming,
    size_columns,
)
from evosearch.report.front import front_columns
from evosearch.report.pareto import ParetoView
from evosearch.report.searches import SEARCH_COLUMNS
from evosearch.report.tables import html_cells, html_heads, html_table, json_object
from evosearch.run.folder import RunFolder
from evosearch.space.space import SearchSpace
from evosearch.study.front import ParetoFront
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Trial
from evosearch.study.trust import MISLEADING


def page_json(view: ParetoView) -> dict[str, Any]:
    """Returns tables, dominated trials, convergence, groups, files and commands of a run."""
    study, front = view.study, view.front
    reference = view.searches[0].reference
    return {
        "run": str(view.folder),
        "axis": {"key": front.size.ratio_key, "label": front.size.heading},
        "metric": metric_of(study),
        "sizes": dict(study.header.sizes),
        "dominated": [_dominated_json(trial, study) for trial in front.dominated],
        "tables": _tables(view),
        "heads": html_heads(measured_columns(study)),
        "cells": _cells(view),
        "made": made_by(study),
        "reference": {"size": reference[0], "loss": reference[1]},
        "convergence": {
            search.name: convergence(search.front, reference) for search in view.searches
        },
        "kept": kept_counts(front.members, study),
        "groups": None if view.space is None else _groups(view.space, view.folder),
        "misleading": MISLEADING,
        "commands": _commands(view),
        "config": _text(RunFolder(view.folder).config),
        "environment": _json(RunFolder(view.folder).environment),
    }


def convergence(front: ParetoFront, reference: tuple[float, float]) -> dict[str, list[float]]:
    """Returns the hypervolume after every full evaluation that raised it, and after the last.

    Args:
        front: of a study.
        reference: the (size, loss) that it is measured from.

    Returns:
        Columns "evaluations" (full ones so far), "seconds" (of all measurements so far, those
        of stopped and failed trials included) and "hypervolume".
    """
    columns: dict[str, list[float]] = {"evaluations": [0], "seconds": [0.0], "hypervolume": [0.0]}
    feasible = {trial.number for trial in front.candidates}
    best = np.empty((0, 2))
    evaluations, seconds, volume = 0, 0.0, 0.0

    def note() -> None:
        for name, value in zip(columns, (evaluations, seconds, volume), strict=True):
            columns[name].append(value)

    for trial in front.trials:
        if trial.duplicate_of is not None:
            continue
        seconds += sum(step.seconds for step in trial.steps)
        evaluations += trial.is_complete
        if trial.number not in feasible or trial.evaluation is None:
            continue
        point = np.array([front.size.of(trial.cost), trial.evaluation.score.loss]) / reference
        if (best <= point).all(axis=1).any():
            continue
        best = np.vstack([best[~(point <= best).all(axis=1)], point])
        volume = float(moocore.hypervolume(best, ref=[1.0, 1.0]))
        note()
    note()
    return columns


def kept_counts(members: Sequence[Trial], study: Study) -> dict[str, list[int]]:
    """Returns, for each channel of each group, how many members of the front keep it."""
    return {
        group: np.sum([trial.mask[group] for trial in members], axis=0, dtype=int).tolist()
        if members
        else [0] * size
        for group, size in study.header.sizes.items()
    }


def _dominated_json(trial: Trial, study: Study) -> dict[str, Any]:
    measures = json_object(measured_columns(study), NamedNetwork.of_trial(trial))
    return {"trial": trial.number, **measures, "widths": list(trial.mask.widths.values())}


def _tables(view: ParetoView) -> dict[str, Any]:
    """Returns the tables of networks and searches, each by the id of its element."""
    study, own = view.study, view.searches[0]
    metric = metric_of(study)
    distilled = [artifact.network for artifact in view.artifacts.values()]
    return {
        "members": html_table(front_columns(own, view.notes), own.members),
        "references": html_table((NAME, *measured_columns(study)), study.header.references),
        "baselines": html_table(
            naming(metric, *SEARCH_COLUMNS), view.searches if view.rivals else ()
        ),
        "distilled": html_table(
            (NAME, *size_columns(study), *naming(metric, TEST_ACCURACY)), distilled
        ),
    }


def _cells(view: ParetoView) -> dict[str, Any]:
    """Returns the texts under `heads` of every network that is drawn, in the order of the JSON."""
    columns = measured_columns(view.study)

    def cells(networks: Sequence[NamedNetwork]) -> list[list[str]]:
        return [html_cells(columns, network) for network in networks]

    own, *baselines = view.searches
    return {
        "front": cells(own.members),
        "dominated": cells([NamedNetwork.of_trial(trial) for trial in own.front.dominated]),
        "references": cells(view.study.header.references),
        "baselines": {search.name: cells(search.members) for search in baselines},
    }


def _groups(space: SearchSpace, folder: Path) -> list[dict[str, Any]]:
    proofs = _json(RunFolder(folder).proof) or {}
    return [
        {
            "name": group.name,
            "size": group.size,
            "min_keep": group.min_keep,
            "multiple_of": group.multiple_of,
            "members": [f"{member.tensor}[{member.dim}]" for member in group.members],
            "proof": proofs.get(group.name),
        }
        for group in space.groups
    ]


def _commands(view: ParetoView) -> dict[str, str | None]:
    run = shlex.quote(str(view.folder))
    artifact = RunFolder(view.folder).artifact("trial N")
    resume, within = f"evosearch resume {run}", None
    if not view.study.header.is_training:  # which ends at its own last trial
        resume += f" --trials {2 * max(1, len(view.study.trials))}"
        within = f"evosearch finetune {run} --at flops=50%"
    exports = [
        f"evosearch export {shlex.quote(str(artifact.folder))} --to exported"
        for artifact in view.artifacts.values()
    ]
    return {
        "finetune": f"evosearch finetune {run} --pick",
        "within": within,
        "export": exports[-1]
        if exports
        else f"evosearch export {shlex.quote(str(artifact))} --to exported",
        "resume": resume,
        "front": f"evosearch pareto {run}",
    }


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _json(path: Path) -> Any:
    """Returns what a file holds; None where it is missing or damaged: a page shows what it can."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
