"""From a finished search to a deployable network: pick a trial, distil it, measure it on test."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from evosearch.artifact import Artifact
from evosearch.cost import Budget, BudgetRequest, Cost
from evosearch.errors import InputError, unknown_name
from evosearch.evaluation.distillation import Distillation, distil
from evosearch.evaluation.scoring import score
from evosearch.evaluation.testing import TestReport
from evosearch.evaluation.training import OnEpoch
from evosearch.files import RunLock
from evosearch.preparation import OnStage, environment, reopen, torch_threads
from evosearch.records import Header
from evosearch.runconfig import read_run_config
from evosearch.scores import Score
from evosearch.strategies.baselines import uniform_mask
from evosearch.study import Study
from evosearch.trial import Trial

TEST_LEDGER = "test.json"
ARTIFACTS = "artifacts"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One named network of the final report.

    Attributes:
        name: what the report calls it.
        cost: its exact cost.
        search: its score on the search split.
        test: its score on the test split, which it was measured on once.
    """

    name: str
    cost: Cost
    search: Score
    test: Score


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What fine-tuning a trial gave.

    Attributes:
        trial: the one that was picked.
        networks: base, lowest-L1 uniform baseline, searched, searched and distilled.
        distillation: how it went.
        artifact: the distilled network on disk.
        test_opened: how often the run opened the test split so far.
    """

    trial: Trial
    networks: tuple[Measured, ...]
    distillation: Distillation
    artifact: Artifact
    test_opened: int


def finetune(
    folder: Path,
    *,
    pick: str = "knee",
    at: str | None = None,
    epochs: int | None = None,
    on_stage: OnStage = lambda _: None,
    on_epoch: OnEpoch | None = None,
) -> Finetuned:
    """Distils a trial of a run, measures it on test once, and saves the artifact.

    The baseline is the lowest-L1 uniform plan at the same budget: that of `at`, or else the
    picked trial's own cost.

    Args:
        folder: of the run.
        pick: "knee", "best" (least loss), or a trial's number.
        at: a budget such as "flops=50%"; then the best trial within it is picked.
        epochs: takes the place of the space's.
        on_stage: told what is being done.
        on_epoch: progress of the distillation.

    Raises:
        InputError: no such run or trial, or nothing fits the budget.
    """
    study = Study.open(folder)
    budget = None if at is None else parse_at(at, study.header.base_cost)
    trial = pick_trial(study, pick, budget)
    lock = RunLock(folder)
    try:
        with torch_threads(read_run_config(folder).search.threads):
            return _finetune(folder, study, trial, budget, at, epochs, on_stage, on_epoch)
    finally:
        lock.release()


def _finetune(
    folder: Path,
    study: Study,
    trial: Trial,
    budget: Budget | None,
    at: str | None,
    epochs: int | None,
    on_stage: OnStage,
    on_epoch: OnEpoch | None,
) -> Finetuned:
    prepared = reopen(folder, study.header, on_stage)
    base, data, task = prepared.subject.model, prepared.subject.data, prepared.subject.task
    space, evaluator = prepared.subject.discovery.space, prepared.evaluator
    rival = uniform_mask(
        space, budget or _own_budget(trial, study.header), prepared.knowledge.scores["l1"]
    )
    config = prepared.config.space.finetune
    if epochs is not None:
        config = config.model_copy(update={"epochs": epochs})
    searched = evaluator.network(trial.mask)
    distilled = evaluator.network(trial.mask)
    on_stage("distillation")
    seed = prepared.config.search.seed
    distillation = distil(
        base, distilled, data.train, data.search, config, seed, on_epoch, task=task
    )

    on_stage("test")
    report = TestReport(
        folder / TEST_LEDGER,
        prepared.config.space.data,
        Path(prepared.config.folder),
        task=task,
    )
    named = (
        ("base network", base, space.base_cost),
        (
            f"lowest-L1 uniform, {at or f'cost of trial {trial.number}'}",
            evaluator.plain_network(rival),
            space.cost(rival),
        ),
        (f"trial {trial.number}", searched, trial.cost),
        (f"trial {trial.number}, distilled {config.epochs} epochs", distilled, trial.cost),
    )
    networks = tuple(
        Measured(
            name=name,
            cost=cost,
            search=score(network, data.search, task=task),
            test=report.measure(name, network).score,
        )
        for name, network, cost in named
    )
    artifact = Artifact.save(
        folder / ARTIFACTS / f"trial-{trial.number}",
        network=distilled,
        base=base,
        mask=trial.mask,
        model_section=prepared.config.space.model.model_dump(mode="json", exclude_none=True),
        card={
            "run": str(folder),
            "trial": trial.number,
            "strategy": study.header.strategy,
            "seed": study.header.seed,
            "space_digest": study.header.space_digest,
            "networks": [_entry(network, space.base_cost) for network in networks],
            "notes": [
                "search accuracy is optimistic: the search and the best epoch were selected"
                " on that split",
                f"the test split was opened {report.opened} times in this run, once for each"
                " named network",
            ],
            "finetune": config.model_dump(mode="json"),
            "best_epoch": distillation.best_epoch,
            "environment": environment(torch.get_num_threads()),
        },
    )
    return Finetuned(
        trial=trial,
        networks=networks,
        distillation=distillation,
        artifact=artifact,
        test_opened=report.opened,
    )


def pick_trial(study: Study, pick: str, budget: Budget | None) -> Trial:
    """Returns the trial that a user means.

    Args:
        study: of the run.
        pick: "knee", "best" or a trial's number; without effect where a budget is given.
        budget: the best trial within it is meant.

    Raises:
        InputError: there is none.
    """
    front = study.front()
    if budget is not None:
        return front.best(budget)
    if pick == "knee":
        return front.knee
    if pick == "best":
        return front.best()
    if not pick.isdecimal():
        raise unknown_name("pick", pick, ["knee", "best", "a trial's number"])
    number = int(pick)
    if number >= len(study.trials):
        raise InputError(f"--pick {pick}: the run has trials 0 to {len(study.trials) - 1}")
    trial = study.trials[number]
    if trial.evaluation is None:
        raise InputError(f"--pick {pick}: that trial failed ({trial.error})")
    return trial


def parse_at(text: str, base: Cost) -> Budget:
    """Reads a budget written as "flops=37%" or "flops=37%,params=0.1M".

    Raises:
        InputError: the text is no such budget.
    """
    amounts: dict[str, str | None] = {"flops": None, "params": None}
    for item in text.split(","):
        name, equals, amount = item.partition("=")
        if not equals:
            raise InputError(f"--at {text!r}: expected NAME=AMOUNT, such as flops=50%")
        if name.strip() not in amounts:
            raise unknown_name("resource", name.strip(), amounts)
        amounts[name.strip()] = amount
    return BudgetRequest(flops=amounts["flops"], params=amounts["params"]).resolve(base)


def _own_budget(trial: Trial, header: Header) -> Budget:
    """Returns the budget that a trial meets exactly, in the resources that the run limits."""
    return Budget.exactly(**{name: getattr(trial.cost, name) for name in header.budget.bounds})


def _entry(network: Measured, base: Cost) -> Mapping[str, Any]:
    return {
        "name": network.name,
        "flops": network.cost.flops,
        "params": network.cost.params,
        "activations": network.cost.activations,
        "ratios": network.cost.relative_to(base),
        "search": asdict(network.search),
        "test": asdict(network.test),
    }
