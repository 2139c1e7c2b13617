"""From a finished search to a deployable network: pick a trial, distil it, measure it on test."""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evosearch.data.splits import SearchSplit
from evosearch.engine.probes import OnStage
from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.export.card import network_json
from evosearch.latency.meter import SECONDS
from evosearch.machine import environment, torch_threads, warn_of_changes
from evosearch.run.config import read_run_config
from evosearch.run.freshtiming import time_fresh
from evosearch.run.lock import RunLock
from evosearch.run.log import RunLog
from evosearch.run.planning import (
    decoded_plan,
    is_measured,
    parse_at,
    pick_plan,
    remember_plan,
)
from evosearch.run.preparation import Prepared
from evosearch.run.reopening import reopen
from evosearch.space.budget import Budget
from evosearch.strategies.fixed_plans import uniform_mask
from evosearch.study.certificate import Certificate
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation
from evosearch.tasks.scoring import score
from evosearch.tasks.task import Task
from evosearch.tasks.testing import TestReport
from evosearch.training.distillation import Distillation, FinetuneConfig, distil
from evosearch.training.trainer import OnEpoch

TEST_LEDGER = "test.json"
ARTIFACTS = "artifacts"


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What fine-tuning a trial gave.

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


def finetune(
    folder: Path,
    *,
    pick: str | None = None,
    at: str | None = None,
    epochs: int | None = None,
    on_stage: OnStage = lambda _: None,
    on_epoch: OnEpoch | None = None,
) -> Finetuned:
    """Distils a plan of a run, measures it on test once, and saves the artifact.

    What a kill cuts short goes on from its last epoch when it is called again.

    The baseline is the lowest-L1 uniform plan at the same budget: that of `at`, or else the
    plan's own cost.

    Args:
        folder: of the run.
        pick: see `planning.pick_plan`.
        at: a budget such as "flops=50%"; then the best known plan within it is meant, measured
            on the search split first where it is only predicted.
        epochs: takes the place of the space's.
        on_stage: told what is being done.
        on_epoch: progress of the distillation.

    Raises:
        InputError: no such run or trial, or nothing fits the budget.
    """
    study = Study.open(folder)
    plan = pick_plan(folder, study, pick, at)
    with _held(folder) as log:
        prepared = reopen(folder, study.header, on_stage)
        if at is not None:
            on_stage("search split")
            plan = _best_measured(folder, study, prepared, at)
        log.event("finetune", plan=plan.name, epochs=epochs)
        done = _finetune(folder, study, prepared, plan, at, epochs, on_stage, on_epoch)
        log.event("artifact", folder=done.artifact.folder, test_opened=done.test_opened)
        return done


def measure_at(folder: Path, at: str, *, on_stage: OnStage = lambda _: None) -> NamedNetwork:
    """Returns the best plan of a run within a budget, once what can be decoded is measured.

    Args:
        folder: of the run.
        at: a budget such as "flops=37%".
        on_stage: told what is being done.

    Raises:
        InputError: the folder holds no run that can be opened, or nothing fits.
    """
    study = Study.open(folder)
    pick_plan(folder, study, None, at)  # refuses what cannot be before anything is opened
    with _held(folder):
        prepared = reopen(folder, study.header, on_stage)
        on_stage("search split")
        return _best_measured(folder, study, prepared, at)


def _best_measured(folder: Path, study: Study, prepared: Prepared, at: str) -> NamedNetwork:
    """Measures the plan that the trials decode to, and returns the best within a budget."""
    decoded = decoded_plan(folder, study, parse_at(at, study.header.base_cost))
    if decoded is not None and not is_measured(folder, study, decoded):
        evaluation = prepared.evaluator.evaluate(decoded.mask)
        remember_plan(folder, replace(decoded, evaluation=evaluation))
    return pick_plan(folder, study, None, at)


@contextmanager
def _held(folder: Path) -> Iterator[RunLog]:
    """Keeps a run for this process, and its thread count, inside the block."""
    threads = read_run_config(folder).search.threads
    lock = RunLock(folder)
    try:
        log = RunLog(folder)
        warn_of_changes(folder, threads)
        with closing(log), torch_threads(threads):
            yield log
    finally:
        lock.release()


def _finetune(
    folder: Path,
    study: Study,
    prepared: Prepared,
    plan: NamedNetwork,
    at: str | None,
    epochs: int | None,
    on_stage: OnStage,
    on_epoch: OnEpoch | None,
) -> Finetuned:
    base, data, task = prepared.subject.model, prepared.subject.data, prepared.subject.task
    space, evaluator = prepared.subject.discovery.space, prepared.evaluator
    budget = _own_budget(plan, study) if at is None else parse_at(at, space.base_cost)
    rival = uniform_mask(space, budget, prepared.knowledge.scores["l1"])
    config = prepared.config.space.finetune
    if epochs is not None:
        config = config.model_copy(update={"epochs": epochs})
    name = plan.name.replace(" ", "-")
    target, progress = folder / ARTIFACTS / name, folder / f"{name}.progress"
    _require_no_other(target, config)
    searched = evaluator.builder.final(plan.mask)
    distilled = copy.deepcopy(searched)
    on_stage("latency")
    latency = _latency(folder, plan)
    on_stage("distillation")
    seed = prepared.config.search.seed
    distillation = distil(
        base,
        distilled,
        data.train,
        data.search,
        config,
        seed,
        on_epoch,
        task=task,
        progress=progress,
    )

    on_stage("test")
    report = TestReport(
        folder / TEST_LEDGER,
        prepared.config.space.data,
        Path(prepared.config.folder),
        task=task,
    )
    named = (
        ("base network", base, space.full_mask()),
        (
            f"lowest-L1 uniform, {at or f'cost of {plan.name}'}",
            evaluator.builder.plain(rival),
            rival,
        ),
        (plan.name, searched, plan.mask),
        (f"{plan.name}, distilled {config.epochs} epochs", distilled, plan.mask),
    )
    networks = tuple(
        NamedNetwork(
            name=name,
            mask=mask,
            cost=space.cost(mask),
            evaluation=_evaluated(network, data.search, task),
            test=report.measure(name, network).score,
        )
        for name, network, mask in named
    )
    artifact = Artifact.save(
        target,
        network=distilled,
        base=base,
        mask=plan.mask,
        model_section=prepared.config.space.model.model_dump(mode="json", exclude_none=True),
        space_folder=Path(prepared.config.folder),
        card={
            "run": str(folder),
            "plan": plan.name,
            "strategy": study.header.strategy,
            "seed": study.header.seed,
            "space_digest": study.header.space_digest,
            "networks": [network_json(n, study.header.base_cost) for n in networks],
            "latency": latency,
            "notes": [
                "search accuracy is optimistic: the search and the best epoch were selected"
                " on that split",
                f"epoch {distillation.best_epoch} of {config.epochs} was the best of the"
                " distillation on the search split, and was kept; 0 is the network before it",
                f"the test split was opened {report.opened} times in this run, once for each"
                " named network",
            ],
            "finetune": config.model_dump(mode="json"),
            "best_epoch": distillation.best_epoch,
            "environment": environment(torch.get_num_threads()),
        },
    )
    progress.unlink(missing_ok=True)
    return Finetuned(
        plan=plan,
        networks=networks,
        distillation=distillation,
        artifact=artifact,
        test_opened=report.opened,
    )


def _evaluated(network: nn.Module, search: SearchSplit, task: Task) -> Evaluation:
    began = time.perf_counter()
    result = score(network, search, task=task)
    return Evaluation(score=result, seconds=time.perf_counter() - began)


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
    """Returns what a plan takes here, and what the run certified of it."""
    conditions, (timing,) = time_fresh(folder, [plan.mask], SECONDS)
    certificate = Certificate.load(folder)
    winner = None if certificate is None else certificate.winner
    return {
        "timing": asdict(timing),
        "conditions": asdict(conditions),
        "certificate": str(certificate) if winner and winner.trial == plan.trial else None,
    }


def _own_budget(plan: NamedNetwork, study: Study) -> Budget:
    """Returns the budget that a plan meets exactly, in the resources that the run limits."""
    return Budget.exactly(**{name: getattr(plan.cost, name) for name in study.budget.bounds})
