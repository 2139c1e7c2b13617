"""The fine-tuning of a run's network: picked, distilled, measured on test, and saved."""

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.export.card import network_json
from evosearch.latency.meter import SECONDS
from evosearch.machine import environment
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.folder import RunFolder
from evosearch.run.freshtiming import time_fresh
from evosearch.run.planning import measured_plan, parse_at, pick_plan
from evosearch.run.preparation import Prepared
from evosearch.run.reopening import held, reopen
from evosearch.space.budget import Budget
from evosearch.space.mask import Mask
from evosearch.strategies.fixed_plans import uniform_mask
from evosearch.study.certificate import certificate_of
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation
from evosearch.tasks.scoring import score
from evosearch.tasks.testing import TestReport
from evosearch.training.distillation import Distillation, FinetuneConfig, distil


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What came of fine-tuning a plan.

    Attributes:
        plan: the one that was picked.
        networks: base, lowest-L1 uniform baseline, searched, searched and distilled.
        distillation: how it went.
        artifact: the distilled network on disk.
        test_opened: how often the run opened the test split so far.
    """

    plan: NamedNetwork
    networks: tuple[NamedNetwork, ...]
    distillation: Distillation
    artifact: Artifact
    test_opened: int


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
    """

    folder: Path
    study: Study
    prepared: Prepared
    plan: NamedNetwork
    at: str | None
    config: FinetuneConfig

    @property
    def target(self) -> Path:
        """Where the artifact goes."""
        return RunFolder(self.folder).artifact(self.plan.name)

    @property
    def progress(self) -> Path:
        """Where the distillation keeps its last epoch."""
        return RunFolder(self.folder).progress(self.plan.name)

    @property
    def rival(self) -> tuple[str, Mask]:
        """The lowest-L1 uniform plan at the budget, or else at the plan's own cost."""
        space = self.prepared.subject.discovery.space
        budget = (
            Budget.exactly(**{n: getattr(self.plan.cost, n) for n in self.study.budget.bounds})
            if self.at is None
            else parse_at(self.at, space.base_cost)
        )
        name = f"lowest-L1 uniform, {self.at or f'cost of {self.plan.name}'}"
        return name, uniform_mask(space, budget, self.prepared.knowledge.scores["l1"])


def finetune(
    folder: Path,
    *,
    pick: str | None = None,
    at: str | None = None,
    epochs: int | None = None,
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
            folder=folder, study=study, prepared=prepared, plan=plan, at=at, config=config
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
    searched = task.prepared.evaluator.builder.final(task.plan.mask)
    distilled = copy.deepcopy(searched)
    callbacks.on_stage("latency")
    latency = _latency(task.folder, task.plan)
    callbacks.on_stage("distillation")
    distillation = _distil(task, distilled, callbacks)
    callbacks.on_stage("test")
    networks, opened = _measured(task, searched, distilled)
    artifact = Artifact.save(
        task.target,
        network=distilled,
        base=task.prepared.subject.model,
        mask=task.plan.mask,
        model_section=task.prepared.config.space.model.model_dump(mode="json", exclude_none=True),
        space_folder=Path(task.prepared.config.folder),
        card=_card(task, networks, latency, distillation, opened),
    )
    task.progress.unlink(missing_ok=True)
    return Finetuned(
        plan=task.plan,
        networks=networks,
        distillation=distillation,
        artifact=artifact,
        test_opened=opened,
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


def _distil(task: _Task, network: nn.Module, callbacks: Callbacks) -> Distillation:
    """Trains a network on the base network's outputs, in place."""
    subject = task.prepared.subject
    return distil(
        subject.model,
        network,
        subject.data.train,
        subject.data.search,
        task.config,
        task.prepared.config.search.seed,
        callbacks.on_epoch,
        task=subject.task,
        progress=task.progress,
    )


def _measured(
    task: _Task, searched: nn.Module, distilled: nn.Module
) -> tuple[tuple[NamedNetwork, ...], int]:
    """Measures the finished network and what it is compared with on the search and test splits.

    Returns:
        The networks, and how often the test split was opened in this run.
    """
    subject, plan, config = task.prepared.subject, task.plan, task.prepared.config
    space, (rival, rival_mask) = subject.discovery.space, task.rival
    report = TestReport(
        RunFolder(task.folder).test, config.space.data, Path(config.folder), task=subject.task
    )
    compared = (
        ("base network", subject.model, space.full_mask()),
        (rival, task.prepared.evaluator.builder.plain(rival_mask), rival_mask),
        (plan.name, searched, plan.mask),
        (f"{plan.name}, distilled {task.config.epochs} epochs", distilled, plan.mask),
    )
    networks = []
    for name, network, mask in compared:
        began = time.perf_counter()
        result = score(network, subject.data.search, task=subject.task)
        evaluation = Evaluation(score=result, seconds=time.perf_counter() - began)
        networks.append(
            NamedNetwork(
                name=name,
                mask=mask,
                cost=space.cost(mask),
                evaluation=evaluation,
                test=report.measure(name, network).score,
            )
        )
    return tuple(networks), report.opened


def _card(
    task: _Task,
    networks: tuple[NamedNetwork, ...],
    latency: Mapping[str, Any],
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
