"""A training under a budget as a run: begun, or gone on with after a kill."""

import time
from collections.abc import Set
from pathlib import Path

from evosearch.criteria import criterion_class
from evosearch.criteria.learned import learned_gates
from evosearch.errors import InputError
from evosearch.machine import resolve_device, torch_threads
from evosearch.models.build import BUILT
from evosearch.run.callbacks import Callbacks
from evosearch.run.choosing import floored, plan_of
from evosearch.run.config import RunConfig, SearchConfig
from evosearch.run.course import Course
from evosearch.run.creation import new_header, write_run
from evosearch.run.finished import Trained
from evosearch.run.folder import RunFolder
from evosearch.run.log import unexpected_logged
from evosearch.run.reopening import held, reopen_training
from evosearch.run.spacefile import SpaceFile
from evosearch.run.subject import load_subject
from evosearch.run.tolerated import require_drop_or_budget
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.knowledge import Knowledge
from evosearch.space.space import SearchSpace
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation
from evosearch.tasks.scoring import image_scores
from evosearch.training.base_training import label_loss
from evosearch.training.pacing import parse_pace
from evosearch.training.penalties import Penalties, require_penalties
from evosearch.training.recipes import PruneConfig, resolved_settings
from evosearch.training.recorded_paces import Epi, Slack
from evosearch.training.wiring import Wired

UNTRAINED = "whole network, untrained"


def begin_training(
    folder: Path,
    *,
    space_file: SpaceFile,
    space_folder: Path,
    search: SearchConfig,
    prune: PruneConfig,
    request: BudgetRequest,
    callbacks: Callbacks,
) -> Trained:
    """Trains under a budget, as a new run.

    Args:
        folder: of the run; must not exist.
        space_file: what is trained, and on what.
        space_folder: where the space file lies.
        search: seed, threads and device.
        prune: the recipe, and what differs from it.
        request: the budget, or the tolerated drop of accuracy.
        callbacks: told how it goes.

    Raises:
        InputError: the folder exists, or something that was given is at fault; before any
            training.
    """
    if not RunFolder(folder).is_free:
        raise InputError(f"{folder}: exists already; resume it, or name another with --out")
    given, prune = prune.model_fields_set, resolved_settings(prune)
    _require_read(given, prune)
    _require_possible(prune, space_file.train.epochs, request)
    fresh, search = prune.weights == "fresh", _on_device(search)
    if (fresh or prune.rewind == "fresh") and space_file.model.weights == BUILT:
        raise InputError(
            '[model] weights = "built": the network comes trained, and this training begins with'
            ' fresh weights; [prune] weights = "base" begins with its own, and rewind = "start"'
            " goes back to those"
        )

    def check(space: SearchSpace) -> None:
        if request.accuracy_drop is None:
            _resolved(request, floored(space, prune.floor))

    with unexpected_logged(folder), torch_threads(search.threads):
        subject = load_subject(
            space_file,
            space_folder,
            fresh=search.seed if fresh else None,
            on_stage=callbacks.on_stage,
            on_epoch=callbacks.on_epoch,
            on_space=check,
        )
        model, space = subject.model.to(search.device), subject.discovery.space
        # These refuse what does not fit.
        label_loss(model, space_file.train, subject.task)
        Penalties(prune.penalties, Wired.of(model, subject.discovery))
        began = time.perf_counter()
        scores = image_scores(model, subject.data.search, task=subject.task)
        evaluation = Evaluation(score=scores.score, seconds=time.perf_counter() - began)
    budget = _resolved(request, floored(space, prune.floor), scores.score.accuracy)
    config = RunConfig(
        folder=str(space_folder.resolve()),
        budget=budget.to_json(),
        search=search,
        space=space_file.model_copy(update={"traced": None, "prune": None}),
        prune=prune,
    )
    whole = NamedNetwork(
        name=UNTRAINED if fresh else "base",
        mask=space.full_mask(),
        cost=space.base_cost,
        evaluation=evaluation,
    )
    header = new_header(
        config,
        subject,
        budget=budget,
        base_cost=space.base_cost,
        strategy=prune.recipe,
        references=(whole,),
    )
    write_run(folder, config, subject, header, scores, Knowledge(gram={}, scores={}))
    with held(folder) as log:
        log.event("start", recipe=prune.recipe, seed=search.seed)
        return Course(folder, config, subject, log, callbacks).finish()


def resume_training(folder: Path, callbacks: Callbacks) -> Trained:
    """Goes on with a training under a budget that was stopped or killed; or reads a finished one.

    Raises:
        InputError: the folder holds none, another process has it, or something is not what it
            began with.
    """
    header = Study.open(folder).header
    with held(folder) as log:
        config, subject = reopen_training(folder, header, callbacks.on_stage)
        log.event("resume")
        return Course(folder, config, subject, log, callbacks).finish()


def _require_possible(prune: PruneConfig, epochs: int, request: BudgetRequest) -> None:
    """Refuses settings that do not go together.

    Raises:
        InputError: names the key.
    """
    if request.needs_model:
        raise InputError(
            "a training under a budget keeps FLOPs or params: give --flops 50% or --params 0.2M"
        )
    require_drop_or_budget(prune, request)
    if prune.regrow and (prune.drop or prune.layerwise or prune.penalties):
        raise InputError(
            f"[prune] regrow = {prune.regrow:g} is for one training that cuts all groups together"
            " without penalties, which would pull at channels that are held at zero: leave out"
            " drop, layerwise and [prune.penalties]"
        )
    if isinstance(prune.rewind, int):
        _require_epoch(prune.rewind, epochs)
    criterion, plan = criterion_class(prune.criterion), plan_of(prune.plan)
    require_penalties(prune.penalties, "[prune.penalties]")
    pace = parse_pace(prune.pace, epochs, drop=request.accuracy_drop)
    if learned_gates(criterion) is not None and (prune.regrow or isinstance(pace, Slack)):
        raise InputError(
            f"[prune] criterion = {prune.criterion!r} reads gates that train with the network on"
            " its way to a budget: leave out regrow, and give --flops 50% or the like"
        )
    if learned_gates(criterion) is not None and not prune.drop and pace.ends == 0:
        raise InputError(
            f"[prune] criterion = {prune.criterion!r} reads gates that train with the network, and"
            f" pace = {prune.pace!r} cuts before any step: take another pace, or drop = 1.0"
        )
    if isinstance(pace, Epi) and not plan.by_scores:
        raise InputError(
            f"[prune] pace = 'epi' waits for widths to settle, and those of plan = {prune.plan!r}"
            " never change: take plan = 'global'"
        )
    if prune.layerwise is not None and (prune.rounds > 1 or prune.drop):
        raise InputError(
            f"[prune] layerwise = {prune.layerwise!r} cuts one group after the other in one"
            " training: leave rounds and drop out"
        )


def _require_read(given: Set[str], prune: PruneConfig) -> None:
    """Refuses keys that were given and that nothing would read.

    Raises:
        InputError: names the key.
    """
    unread = {"pace", "every", "rounds"} if prune.drop else {"rewind"}
    for key in sorted(unread & given):
        if prune.drop:
            reason = f"is of cuts in one training, and drop = {prune.drop:g} cuts between several"
        else:
            reason = "goes back between trainings, and there is one: give drop = 0.2 or the like"
        raise InputError(f"[prune] {key} = {getattr(prune, key)!r} {reason}")


def _require_epoch(rewind: int, epochs: int) -> None:
    if rewind >= epochs:
        raise InputError(
            f"[prune] rewind = {rewind}: trainings of {epochs} epochs have none after that"
            " to begin with; take fewer"
        )


def _resolved(
    request: BudgetRequest, space: SearchSpace, base_accuracy: float | None = None
) -> Budget:
    """Returns the budget in numbers; a tolerated drop refers to the accuracy before training.

    Raises:
        InputError: it is a range, or no network meets it.
    """
    budget = request.resolve(space.base_cost, base_accuracy)
    if budget.is_range:
        raise InputError("a training ends at one budget, not at a range: give --flops 50%")
    space.require_reachable(budget)
    return budget


def _on_device(search: SearchConfig) -> SearchConfig:
    return search.model_copy(update={"device": resolve_device(search.device)})
