"""The probes of a run: the sensitivities of its groups, and what the rungs of its ladder cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evosearch.engine.measurements import Measurements
from evosearch.engine.probes import measure_sensitivity, time_rungs
from evosearch.errors import InputError
from evosearch.files import cache_folder, writing
from evosearch.run.preparation import Prepared
from evosearch.space.budget import Budget
from evosearch.space.knowledge import Knowledge, SensitivityCurve
from evosearch.stages import OnStage
from evosearch.strategies.base import RungPlan
from evosearch.study.identity import VERSIONS, Part
from evosearch.study.rungtimes import RungTimes
from evosearch.study.trial import Rung

NEEDLESS = "the strategies uniform, global and random need none"


def probed(
    prepared: Prepared, path: Path, measurements: Measurements, on_stage: OnStage
) -> Prepared:
    """Returns what a run works with, its knowledge with sensitivities: cached, or measured.

    Cut short, measuring goes on from the probes whose scores are stored.

    Args:
        prepared: what the run works with.
        path: of the file that keeps the knowledge.
        measurements: of masks on its search split.
        on_stage: told how far it is.

    Raises:
        EvosearchError: a probe failed.
        StorageError: a file cannot be written.
    """
    if prepared.knowledge.sensitivity:
        return prepared
    found = _sensitivity(prepared, measurements, on_stage)
    knowledge = replace(prepared.knowledge, sensitivity=found)
    with writing(path):
        knowledge.save(path)
    return replace(prepared, knowledge=knowledge)


def _sensitivity(
    prepared: Prepared, measurements: Measurements, on_stage: OnStage
) -> Mapping[str, SensitivityCurve]:
    cached, search = cached_sensitivity(prepared), prepared.config.search
    try:
        return Knowledge.load(cached).sensitivity
    except InputError:  # not there, or damaged: what is measured again is the same
        on_stage(f"sensitivity of each group: probes come next; {NEEDLESS}")
    found = measure_sensitivity(
        prepared.subject.discovery.space,
        prepared.knowledge,
        search.keep_ratios,
        measurements,
        on_stage,
        images=search.probe_images,
    ).sensitivity
    with writing(cached):
        cached.parent.mkdir(parents=True, exist_ok=True)
        Knowledge(gram={}, scores={}, sensitivity=found).save(cached)
    return found


def cached_sensitivity(prepared: Prepared) -> Path:
    """Returns where sensitivities are kept: by all that their losses follow from."""
    search, subject = prepared.config.search, prepared.subject
    settings = {
        "space": subject.discovery.space.digest,
        **search.model_dump(
            mode="json",
            include={"seed", "threads", "device", "keep_ratios", "probe_images", "evaluator"},
        ),
    }
    if search.evaluator.recovery_images:
        settings["finetune"] = prepared.config.space.finetune.settings
    splits = (Part.TRAIN, Part.CALIBRATION, Part.SEARCH)
    parts = (Part.GRAPH, Part.WEIGHTS, *splits, Part.PREPARATION, Part.TASK, *VERSIONS)
    known = subject.identity.only((*parts, Part.ELASTIC))  # which few runs have
    key = known.key(*known.parts, settings=settings)
    return cache_folder() / "sensitivity" / f"{key}.npz"


def probes_worth(prepared: Prepared) -> int:
    """Returns how many evaluations on the whole search split the probes of a run are worth."""
    curves = prepared.knowledge.sensitivity.values()
    probes = sum(len(curve.widths) - 1 for curve in curves)
    whole = prepared.evaluator.images
    return -(-probes * min(prepared.config.search.probe_images, whole) // whole)


def worthwhile(
    folder: Path,
    prepared: Prepared,
    plans: Sequence[RungPlan],
    aim: Budget,
    measurements: Measurements,
    on_stage: OnStage,
) -> Sequence[RungPlan]:
    """Returns the rungs that the rounds of a run climb: none that costs more than the next one.

    The costs are measured once for a run and recorded, so that it goes on with the same rungs.

    Args:
        folder: of the run.
        prepared: what it works with.
        plans: the rungs of its strategy.
        aim: the budget that candidates meet.
        measurements: of masks on its search split.
        on_stage: told what is being measured.

    Raises:
        InputError: the record cannot be read.
        StorageError: it cannot be written.
    """
    search = prepared.config.search
    if search.evaluator.build == "elastic":  # the compensated error is that of refitted weights
        plans = [plan for plan in plans if plan.rung is not Rung.COMPENSATED]
    if not plans:
        return plans
    times = RungTimes.load(folder)
    if times is None:
        space = prepared.subject.discovery.space
        times = time_rungs(space, aim, plans, measurements, search.seed, on_stage)
        times.save(folder)
    left_out = {costlier.rung for costlier in times.costlier}
    return [plan for plan in plans if plan.rung not in left_out]
