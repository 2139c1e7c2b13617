"""The pruned network of a plan before any training: of a run, or of a space without a search."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from torch import nn

from evosearch.callables import files_without_name
from evosearch.config import validated
from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.machine import resolve_device, torch_threads
from evosearch.run.baselook import fitted, look_at_base
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.channels import TWO_STEP, chooser_of
from evosearch.run.compared import Compared, base_of, built, measured
from evosearch.run.config import RunConfig, SearchConfig
from evosearch.run.evaluating import make_evaluator
from evosearch.run.picking import picked
from evosearch.run.planning import plan_name
from evosearch.run.preparation import Prepared, require_possible
from evosearch.run.saving import SELECTED, UNTRAINED, cut_note, from_run, save_artifact
from evosearch.run.spacefile import SpaceFile
from evosearch.run.subject import Subject, load_subject
from evosearch.space.budget import BudgetRequest
from evosearch.strategies.two_step_plan import two_step_plan
from evosearch.study.networks import NamedNetwork

_logger = logging.getLogger(__name__)

UNSEARCHED = (
    "no search: the widths are one allocation by the layers' two-step errors, for which no image"
    " of the search split was used"
)
"""The note of a plan without a search."""
_PLAN = "evosearch_plan"
"""Attribute of a network that is handed over: the name of its plan."""


@final
@dataclass(frozen=True, kw_only=True)
class Cut:
    """A pruned network that was not trained.

    Attributes:
        base: the base network as it was measured beside.
        plan: its channels, cost, and score on the search split.
        network: compact and compensated, elastic where that is better; on the CPU, in eval mode.
        artifact: the same on disk, where that was asked for.
    """

    base: NamedNetwork
    plan: NamedNetwork
    network: nn.Module
    artifact: Artifact | None


def network_of(
    folder: Path, *, pick: str | None, at: str | None, callbacks: Callbacks = SILENT
) -> nn.Module:
    """Returns the pruned network of a run's plan; see `cut_run`."""
    with picked(folder, pick=pick, at=at, callbacks=callbacks) as run:
        network = built(run.prepared, run.plan.name, run.plan.mask).network
        setattr(network, _PLAN, run.plan.name)
        return _handed_over(network)


def plan_of(network: nn.Module) -> str | None:
    """Returns the plan that `network_of` handed a network over as; None of any other."""
    name = getattr(network, _PLAN, None)
    return name if isinstance(name, str) else None


def cut_run(
    folder: Path,
    *,
    pick: str | None,
    at: str | None,
    to: Path | None,
    callbacks: Callbacks = SILENT,
) -> Cut:
    """Builds the network of a run's plan as it is before training, and scores it.

    Args:
        folder: of the run.
        pick: see `planning.pick_plan`.
        at: a budget; see `picking.picked`.
        to: new folder of its artifact; None writes none.
        callbacks: told what is being done.

    Raises:
        InputError: no such run or trial, nothing fits the budget, or the new folder exists.
    """
    _require_new(to)
    with picked(folder, pick=pick, at=at, callbacks=callbacks) as run:
        note = cut_note(run.prepared.evaluator.builder, run.plan.mask)
        card = {**from_run(folder, run.study), "notes": [note, SELECTED]}
        callbacks.on_stage("compact network")
        compared = built(run.prepared, run.plan.name, run.plan.mask)
        cut = _cut(run.prepared, compared, to, card, callbacks)
        run.log.event("cut", plan=run.plan.name, to=to)
        return cut


def cut_space(
    file: SpaceFile,
    folder: Path,
    *,
    where: str,
    request: BudgetRequest,
    to: Path | None,
    channels: str = TWO_STEP,
    anyway: bool = False,
    callbacks: Callbacks = SILENT,
) -> Cut:
    """Cuts the base network of a space to a budget without a search, and scores what is left.

    Args:
        file: the space file's content.
        folder: where it lies.
        where: its path, for messages and the card.
        request: FLOPs, params or both; no range.
        to: new folder of the artifact; None writes none.
        channels: who chooses them; see `channels.CHOOSERS`.
        anyway: whether a base network that is not what it should be is passed over.
        callbacks: told what is being done.

    Raises:
        InputError: something that was given is at fault, or the new folder exists.
    """
    _require_new(to)
    chooser = chooser_of(channels)
    search = validated(SearchConfig, file.search, f"{where}: [search]")
    search = search.model_copy(update={"device": resolve_device(search.device)})
    with torch_threads(search.threads):
        subject = load_subject(
            file,
            folder,
            on_stage=callbacks.on_stage,
            identify_images=file.model.weights is None,  # else they are of no use here
            on_epoch=callbacks.on_epoch,
            on_space=lambda space: require_possible(request, space),
        )
        space = subject.discovery.space
        budget = request.resolve(space.base_cost)
        callbacks.on_stage("base network on the search split")
        search, fallback = fitted(search, subject)
        evaluator = make_evaluator(search, subject, file.finetune)
        look_at_base(evaluator, subject, file, anyway=anyway, on_note=callbacks.on_note)
        if fallback is not None:
            callbacks.on_note(fallback)
        callbacks.on_stage("statistics of layer inputs")
        few = make_evaluator(search, _with_few(subject, search), file.finetune)
        knowledge = few.knowledge(())
        prepared = Prepared(
            config=RunConfig(
                folder=str(folder.resolve()),
                budget=budget.to_json(),
                search=search,
                space=file,
            ),
            subject=subject,
            evaluator=evaluator,
            knowledge=knowledge,
        )
        plan = two_step_plan(space, budget, knowledge.gram)
        callbacks.on_stage("compact network")
        mask, network = chooser.choose(prepared, few, plan)
        compared = Compared(name=plan_name(mask), mask=mask, network=network)
        notes = [UNTRAINED, UNSEARCHED, *([] if chooser.note is None else [chooser.note])]
        card: dict[str, Any] = {"notes": notes}
        if not file.is_of_objects:
            card["space"] = str(Path(where).resolve())
        return _cut(prepared, compared, to, card, callbacks)


def _with_few(subject: Subject, search: SearchConfig) -> Subject:
    """Returns a subject with as many calibration images as candidates are built on, at most.

    They are enough to choose channels by, in a share of the time; weights are refitted on all.
    """
    few = subject.data.calibration.shuffled(search.seed, search.evaluator.build_images)
    return replace(subject, data=replace(subject.data, calibration=few))


def _require_new(to: Path | None) -> None:
    if to is not None and to.exists():
        raise InputError(f"{to}: exists already; name a new folder")


def _cut(
    prepared: Prepared,
    compared: Compared,
    to: Path | None,
    card: Mapping[str, Any],
    callbacks: Callbacks,
) -> Cut:
    """Scores a compact network beside the base network, and saves it."""
    callbacks.on_stage("search split")
    base, plan = measured(prepared.subject, [base_of(prepared), compared])
    artifact = None
    if to is not None:
        callbacks.on_stage("artifact, and its check in a fresh process")
        said = {"plan": compared.name, **card}
        artifact = save_artifact(
            to, prepared.config, prepared.subject, compared, networks=(base, plan), card=said
        )
    return Cut(base=base, plan=plan, network=_handed_over(compared.network), artifact=artifact)


def _handed_over(network: nn.Module) -> nn.Module:
    """Returns a network as its new owner gets it, who may pickle it."""
    for file in files_without_name(network.modules()):
        _logger.warning(
            "%s: what torch.save writes of this network loads in no other process, as `import`"
            " finds something else by the name of this file, or nothing; rename the file, or keep"
            " the network's artifact",
            file,
        )
    return network.cpu()
