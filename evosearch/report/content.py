"""What the HTML page of a run holds beyond the JSON of `evosearch pareto`."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from evosearch.report.artifacts import artifact_cards
from evosearch.report.pareto import ParetoView
from evosearch.report.table import measures_json, reference_point
from evosearch.space.space import SearchSpace
from evosearch.study.front import ParetoFront
from evosearch.study.study import Study
from evosearch.study.trial import Trial
from evosearch.study.trust import MISLEADING

CONFIG, ENVIRONMENT, PROOF = "config.toml", "environment.json", "proof.json"


def page_json(view: ParetoView) -> dict[str, Any]:
    """Returns dominated trials, convergence, groups, files and commands of a run."""
    study, front = view.study, view.front
    searches = {study.header.strategy: study, **view.rivals}
    reference = reference_point(study, front)
    return {
        "run": str(view.folder),
        "sizes": dict(study.header.sizes),
        "dominated": [_row(trial, study) for trial in front.dominated],
        "reference": {"size": reference[0], "loss": reference[1]},
        "convergence": {
            name: convergence(own.front(front.size), reference) for name, own in searches.items()
        },
        "kept": kept_counts(front.members, study),
        "groups": None if view.space is None else _groups(view.space, view.folder),
        "misleading": MISLEADING,
        "commands": _commands(view),
        "config": _text(view.folder / CONFIG),
        "environment": _json(view.folder / ENVIRONMENT),
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


def _row(trial: Trial, study: Study) -> dict[str, Any]:
    assert trial.evaluation is not None
    measures = measures_json(trial.cost, trial.evaluation.score, study.header.base_cost)
    return {"trial": trial.number, **measures, "widths": list(trial.mask.widths.values())}


def _groups(space: SearchSpace, folder: Path) -> list[dict[str, Any]]:
    proofs = _json(folder / PROOF) or {}
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


def _commands(view: ParetoView) -> dict[str, str]:
    run = shlex.quote(str(view.folder))
    total = 2 * max(1, len(view.study.trials))
    exports = [
        f"evosearch export {shlex.quote(card['folder'])} --to exported"
        for card in artifact_cards(view.folder).values()
    ]
    return {
        "finetune": f"evosearch finetune {run} --pick",
        "within": f"evosearch finetune {run} --at flops=50%",
        "export": exports[-1]
        if exports
        else f"evosearch export {run}/artifacts/trial-N --to exported",
        "resume": f"evosearch resume {run} --trials {total}",
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
