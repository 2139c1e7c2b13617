"""The fine-tuning of a run's network: picked, distilled, measured on test, and saved."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.export.card import network_json
from evosearch.latency.meter import SECONDS
from evosearch.machine import environment
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.compared import Compared, base_of, global_within, measured, plain_within
from evosearch.run.folder import RunFolder
from evosearch.run.freshtiming import time_fresh
from evosearch.run.measurer import RunMeasurer
from evosearch.run.planning import measured_plan, parse_at, pick_plan
from evosearch.run.preparation import Prepared
from evosearch.run.reopening import held, reopen
from evosearch.space.budget import Budget
from evosearch.study.accuracy_certificate import ConfirmedDrop
from evosearch.study.certificate import certificate_of
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.tasks.testing import TestReport
from evosearch.training.distillation import Distillation, FinetuneConfig, distil


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What came of fine-tuning a plan.

    Attributes:
        plan: the one that was picked.
        networks: base, lowest-L1 uniform, global without a search (and distilled, where that was
            asked for), searched, searched and distilled.
        distillation: how it went.
        artifact: the distilled network on disk.
        confirmed: its drop against the base network; None without confirmation images.
        test_opened: how often the run opened the test split so far.
    """

    plan: NamedNetwork
    networks: tuple[NamedNetwork, ...]
    distillation: Distillation
    artifact: Artifact
    confirmed: ConfirmedDrop | None
    test_opened: int

    def __repr__(self) -> str:
        return f"Finetuned({self.networks[-1]}, {self.distillation}, {self.artifact})"


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A plan that is to be fine-tuned, and all that this takes.

    Attributes:
        folder: of the run.
        study: of the run.
        prepared: what the run works with.
        plan: the network that was picked.
        at: the budget that it was picked for, as written; None where it was picked by itself.
        config: how it is distilled.
        baselines: whether the plan without a search is distilled alike.
    """

    folder: Path
    study: Study
    prepared: Prepared
    plan: NamedNetwork
    at: str | None
    config: FinetuneConfig
    baselines: bool

    @property
    def target(self) -> Path:
        """Where the artifact goes."""
        return RunFolder(self.folder).artifact(self.plan.name)

    @property
    def budget(self) -> tuple[Budget, str]:
        """The budget that it is compared at, its own cost where none was named; and its name."""
        if self.at is not None:
            return parse_at(self.at, self.prepared.subject.discovery.space.base_cost), self.at
        own = {name: getattr(self.plan.cost, name) for name in self.study.budget.bounds}
        return Budget.exactly(**own), f"cost of {self.plan.name}"


def finetune(
    folder: Path,
    *,
    pick: str | None = None,
    at: str | None = None,
    epochs: int | None = None,
    baselines: bool = False,
    callbacks: Callbacks = SILENT,
) -> Finetuned:
    """Distils a plan of a run, measures it on test once, and saves the artifact.

    What a kill cuts short goes on from its last epoch when it is called again.

    Args:
        folder: of the run.
        pick: see `planning.pick_plan`.
        at: a budget such as "flops=50%"; then the best known plan within it is meant, measured
            on the search split first where it is only predicted.
        epochs: takes the place of the space's.
        baselines: whether the global plan without a search is distilled alike, beside it.
        callbacks: told what is being done, and how the distillation goes.

    Raises:
        InputError: no such run or trial, or nothing fits the budget.
    """
    study = Study.open(folder)
    plan = pick_plan(folder, study, pick, at)
    with held(folder) as log:
        prepared = reopen(folder, study.header, callbacks.on_stage)
        if at is not None:
            callbacks.on_stage("search split")
            plan = measured_plan(folder, study, at, prepared.evaluator.evaluate)
        log.event("finetune", plan=plan.name, epochs=epochs)
        config = prepared.config.space.finetune
        if epochs is not None:
            config = config.model_copy(update={"epochs": epochs})
        task = _Task(
            folder=folder,
            study=study,
            prepared=prepared,
            plan=plan,
            at=at,
            config=config,
            baselines=baselines,
        )
        done = _finetuned(task, callbacks)
        log.event("artifact", folder=done.artifact.folder, test_opened=done.test_opened)
        return done


def measure_at(folder: Path, at: str, *, callbacks: Callbacks = SILENT) -> NamedNetwork:
    """Returns the best plan of a run within a budget, once what can be decoded is measured.

    Args:
        folder: of the run.
        at: a budget such as "flops=37%".
        callbacks: told what is being done.

    Raises:
        InputError: the folder holds no run that can be opened, or nothing fits.
    """
    study = Study.open(folder)
    pick_plan(folder, study, None, at)  # refuses what cannot be before anything is opened
    with held(folder):
        prepared = reopen(folder, study.header, callbacks.on_stage)
        callbacks.on_stage("search split")
        return measured_plan(folder, study, at, prepared.evaluator.evaluate)


def _finetuned(task: _Task, callbacks: Callbacks) -> Finetuned:
    """Distils a plan, measures it beside what it is compared with, and saves it."""
    _require_no_other(task.target, task.config)
    prepared, (budget, at) = task.prepared, task.budget
    searched = Compared(
        name=task.plan.name,
        mask=task.plan.mask,
        network=prepared.evaluator.builder.final(task.plan.mask),
    )
    rival = global_within(prepared, budget, at)
    compared = [base_of(prepared), plain_within(prepared, budget, at), rival]
    callbacks.on_stage("latency")
    latency = _latency(task.folder, task.plan)
    callbacks.on_stage("distillation")
    distilled, distillation = _distilled(task, searched, callbacks)
    if task.baselines:
        callbacks.on_stage(f"distillation of {rival.name}")
        compared.append(_distilled(task, rival, callbacks)[0])
    callbacks.on_stage("test")
    report = TestReport(
        RunFolder(task.folder).test,
        prepared.config.space.data,
        Path(prepared.config.folder),
        task=prepared.subject.task,
    )
    networks = measured(prepared, report, [*compared, searched, distilled])
    confirmed = RunMeasurer(task.folder, prepared).drop_of(distilled.network)
    artifact = Artifact.save(
        task.target,
        network=distilled.network,
        base=task.prepared.subject.model,
        mask=task.plan.mask,
        model_section=task.prepared.config.space.model.model_dump(mode="json", exclude_none=True),
        space_folder=Path(task.prepared.config.folder),
        card=_card(task, networks, latency, confirmed, distillation, report.opened),
    )
    for name in (searched.name, rival.name):
        RunFolder(task.folder).progress(name).unlink(missing_ok=True)
    return Finetuned(
        plan=task.plan,
        networks=networks,
        distillation=distillation,
        artifact=artifact,
        confirmed=confirmed,
        test_opened=report.opened,
    )


def _require_no_other(target: Path, config: FinetuneConfig) -> None:
    """Refuses to replace an artifact that was distilled in another way."""
    if not target.exists():
        return
    made = Artifact.open(target).card.get("finetune")
    if made != config.model_dump(mode="json"):
        raise InputError(
            f"{target}: holds this network distilled with other settings; move it elsewhere first"
        )


def _latency(folder: Path, plan: NamedNetwork) -> Mapping[str, Any]:
    """Returns what a plan takes here."""
    conditions, (timing,) = time_fresh(folder, [plan.mask], SECONDS)
    return {"timing": asdict(timing), "conditions": asdict(conditions)}


def _certified(task: _Task) -> str | None:
    """Returns what the run certified of a plan."""
    certificate = certificate_of(task.folder, task.study.requested)
    if certificate is None or certificate.trial is None or certificate.trial != task.plan.trial:
        return None
    return str(certificate)


def _distilled(
    task: _Task, compared: Compared, callbacks: Callbacks
) -> tuple[Compared, Distillation]:
    """Returns a copy of a network, trained on the base network's outputs, and how that went."""
    subject, network = task.prepared.subject, copy.deepcopy(compared.network)
    distillation = distil(
        subject.model,
        network,
        subject.data.train,
        subject.data.search,
        task.config,
        task.prepared.config.search.seed,
        callbacks.on_epoch,
        task=subject.task,
        progress=RunFolder(task.folder).progress(compared.name),
    )
    name = f"{compared.name}, distilled {task.config.epochs} epochs"
    return replace(compared, name=name, network=network), distillation


def _card(
    task: _Task,
    networks: tuple[NamedNetwork, ...],
    latency: Mapping[str, Any],
    confirmed: ConfirmedDrop | None,
    distillation: Distillation,
    opened: int,
) -> dict[str, Any]:
    """Returns what the artifact says of itself."""
    header = task.study.header
    return {
        "run": str(task.folder),
        "plan": task.plan.name,
        "strategy": header.strategy,
        "seed": header.seed,
        "space_digest": header.space_digest,
        "networks": [network_json(network, header.base_cost) for network in networks],
        "latency": latency,
        "certificate": _certified(task),
        "confirmed": None if confirmed is None else asdict(confirmed),
        "notes": [
            "search accuracy is optimistic: the search and the best epoch were selected"
            " on that split",
            f"epoch {distillation.best_epoch} of {task.config.epochs} was the best of the"
            " distillation on the search split, and was kept; 0 is the network before it",
            f"the test split was opened {opened} times in this run, once for each named network",
        ],
        "finetune": task.config.model_dump(mode="json"),
        "best_epoch": distillation.best_epoch,
        "environment": environment(torch.get_num_threads()),
    }
