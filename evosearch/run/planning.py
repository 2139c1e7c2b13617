"""The best known network of a run at any budget, also one that was never searched.

Imported without torch.

A search leaves more than its trials: a model of the loss fitted to them (`strategies.learned`).
The allocation decodes that model at any budget, the two-step fitness refines the channels, and
the plan is a prediction until it is measured.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evosearch.aims import aim_of
from evosearch.errors import InputError, unknown_name
from evosearch.files import write_json, writing
from evosearch.run.folder import RunFolder
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.cost import Cost
from evosearch.space.knowledge import Knowledge
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.space.text import load_space
from evosearch.strategies.learned import LossModel
from evosearch.study.certificate import certificate_of
from evosearch.study.networks import NamedNetwork, Prediction
from evosearch.study.records import evaluation_from_json, evaluation_to_json
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation, Trial

PICKS = ("knee", "best", "smallest")
NEAR = 0.1
"""Of a budget, what a plan near it leaves unused at most."""


def pick_plan(folder: Path, study: Study, pick: str | None, at: str | None) -> NamedNetwork:
    """Returns the plan that a user means.

    Args:
        folder: of the run.
        study: its study.
        pick: "knee", "best" (least loss), "smallest" or a trial's number, or the name that tables
            call a network by, "trial 6" or "plan 1f00ba12"; None for the trial that the run's
            certificate is about, or the smallest where the budget is an accuracy, or else the
            knee.
        at: a budget such as "flops=37%"; then the best known plan within it is meant.

    Raises:
        InputError: there is none.
    """
    if at is not None:
        if pick is not None:
            raise InputError(f"--pick {pick} and --at {at} each name a network: give one of them")
        return plan_at(folder, study, parse_at(at, study.header.base_cost))
    certificate = certificate_of(folder, study.requested)
    if pick is None and certificate is not None and certificate.trial is not None:
        pick = str(certificate.trial)
    if pick is not None and pick.startswith("plan "):
        space = load_space(RunFolder(folder).space)
        plans = {plan.name: plan for plan in _plans(folder, study, space)}
        if pick not in plans:
            raise unknown_name("plan", pick, plans)
        return plans[pick]
    return NamedNetwork.of_trial(_picked_trial(study, pick))


def _picked_trial(study: Study, pick: str | None) -> Trial:
    front = study.front()
    if pick is None:
        return aim_of(study.requested).winner(front)
    if pick in PICKS:
        return {"knee": lambda: front.knee, "best": front.best, "smallest": front.smallest}[pick]()
    pick = pick.removeprefix("trial ")
    if not pick.isdecimal():
        raise unknown_name("pick", pick, [*PICKS, "a trial's number"])
    number = int(pick)
    if number >= len(study.trials):
        raise InputError(f"--pick {pick}: the run has trials 0 to {len(study.trials) - 1}")
    trial = study.trials[number]
    if trial.error is not None:
        raise InputError(f"--pick {pick}: that trial failed ({trial.error})")
    return trial


def parse_at(text: str, base: Cost) -> Budget:
    """Reads a budget written as "flops=37%" or "flops=37%,params=0.1M".

    Raises:
        InputError: the text is no such budget.
    """
    exact = [resource.option for resource in RESOURCES.values() if resource.exact]
    amounts: dict[str, str] = {}
    for item in text.split(","):
        name, equals, amount = item.partition("=")
        if not equals:
            raise InputError(f"--at {text!r}: expected NAME=AMOUNT, such as flops=50%")
        if name.strip() not in exact:
            raise unknown_name("resource", name.strip(), exact)
        amounts[name.strip()] = amount
    return BudgetRequest(amounts=amounts).resolve(base)


def plan_at(folder: Path, study: Study, budget: Budget) -> NamedNetwork:
    """Returns the best known plan within a budget.

    That is the trial or measured plan of least loss, or the plan decoded from the trials where it
    is predicted to be clearly better: the least of all predictions is too low by nature.

    Args:
        folder: of the run.
        study: its study.
        budget: any; its upper end is met.

    Raises:
        InfeasibleBudget: no legal plan fits.
        InputError: no trial fits, and there is nothing to decode a plan with.
    """
    space = load_space(RunFolder(folder).space)
    space.require_reachable(budget.at(1.0))
    measured = [*_trials_within(study, budget), *_plans_within(folder, study, budget, space)]
    best = min(measured, key=lambda network: network.search.loss, default=None)
    decoded = decoded_plan(folder, study, budget)
    if decoded is None or any(decoded.mask == plan.mask for plan in measured):
        if best is None:
            raise InputError(
                "no trial of this run fits the budget asked for, and it has no model to decode a"
                " plan with; resume it with that budget"
            )
        return best
    predicted = 0.0 if decoded.prediction is None else decoded.prediction.high
    if best is not None and predicted >= best.search.loss:
        return best
    return decoded


def decoded_plan(folder: Path, study: Study, budget: Budget) -> NamedNetwork | None:
    """Returns the plan that the trials predict to be best within a budget; it may be measured.

    Returns:
        None where the run has no sensitivities, and so no model.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    knowledge = Knowledge.load(RunFolder(folder).knowledge)
    if not knowledge.sensitivity:
        return None
    space = load_space(RunFolder(folder).space)
    model = LossModel(space, knowledge)
    weights = model.fit(study.trials).mean()
    mask = model.plan(weights, budget.at(1.0))
    loss = float(model.predict(model.layout.rows([mask]), weights)[0])
    complete = [trial for trial in study.trials if trial.is_complete]
    error = 0.0
    if complete:
        losses = np.array([trial.loss for trial in complete])
        rows = model.layout.rows([trial.mask for trial in complete])
        predictions = np.maximum(model.predict(rows, weights), 1e-12)
        error = float(np.log(np.maximum(losses, 1e-12) / predictions).std())
    return NamedNetwork(
        name=plan_name(mask),
        mask=mask,
        cost=space.cost(mask),
        prediction=Prediction(loss=loss, high=loss * float(np.exp(error))),
    )


def _is_measured(folder: Path, study: Study, plan: NamedNetwork) -> bool:
    """Returns whether a decoded plan was measured already, as a trial or by itself."""
    masks = {trial.mask for trial in study.trials if trial.is_complete}
    stored = [Mask.from_json(entry["mask"], study.header.sizes) for entry in _stored(folder)]
    return plan.mask in masks.union(stored)


def remember_plan(folder: Path, plan: NamedNetwork) -> None:
    """Keeps a decoded plan with its evaluation, beside the study."""
    assert plan.evaluation is not None
    entry = {"mask": plan.mask.to_json(), "evaluation": evaluation_to_json(plan.evaluation)}
    kept = [old for old in _stored(folder) if old["mask"] != entry["mask"]]
    path = RunFolder(folder).plans
    with writing(path):
        write_json(path, [*kept, entry])


def measured_plan(
    folder: Path, study: Study, at: str, evaluate: Callable[[Mask], Evaluation]
) -> NamedNetwork:
    """Measures the plan that the trials decode to, and returns the best within a budget.

    Args:
        folder: of the run.
        study: its study.
        at: a budget such as "flops=37%".
        evaluate: measures a mask on the search split.

    Raises:
        InputError: nothing fits.
    """
    measure_decoded(folder, study, parse_at(at, study.header.base_cost), evaluate)
    return pick_plan(folder, study, None, at)


def measure_decoded(
    folder: Path, study: Study, budget: Budget, evaluate: Callable[[Mask], Evaluation]
) -> None:
    """Measures the plan that the trials decode to within a budget, unless that was done.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    decoded = decoded_plan(folder, study, budget)
    if decoded is not None and not _is_measured(folder, study, decoded):
        remember_plan(folder, replace(decoded, evaluation=evaluate(decoded.mask)))


def plans_near(folder: Path, study: Study, budget: Budget) -> list[NamedNetwork]:
    """Returns the measured plans within a budget that use most of it, each mask once, best first.

    Args:
        folder: of the run.
        study: its study.
        budget: one that exact forms give; a plan is near if it takes `1 - NEAR` of any bound.
    """
    space = load_space(RunFolder(folder).space)
    within = [*_trials_within(study, budget), *_plans_within(folder, study, budget, space)]
    plans = {plan.mask: plan for plan in reversed(within)}  # the first of equal masks
    near = [
        plan
        for plan in plans.values()
        if any(
            RESOURCES[name].of(plan.cost) >= (1 - NEAR) * bound.high
            for name, bound in budget.bounds.items()
        )
    ]
    return sorted(near, key=lambda plan: (plan.search.loss, plan.name))


def _trials_within(study: Study, budget: Budget) -> list[NamedNetwork]:
    return [
        NamedNetwork.of_trial(trial)
        for trial in study.front().candidates
        if trial.violation(budget) == 0
    ]


def _plans_within(
    folder: Path, study: Study, budget: Budget, space: SearchSpace
) -> list[NamedNetwork]:
    return [
        plan
        for plan in _plans(folder, study, space)
        if budget.violation(plan.cost, plan.search.accuracy) == 0
    ]


def _plans(folder: Path, study: Study, space: SearchSpace) -> list[NamedNetwork]:
    """Returns the plans of a run that were measured beside its trials."""
    plans = []
    for entry in _stored(folder):
        mask = Mask.from_json(entry["mask"], study.header.sizes)
        evaluation = evaluation_from_json(entry["evaluation"])
        plans.append(
            NamedNetwork(
                name=plan_name(mask), mask=mask, cost=space.cost(mask), evaluation=evaluation
            )
        )
    return plans


def _stored(folder: Path) -> list[dict[str, Any]]:
    path = RunFolder(folder).plans
    stored: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return stored


def plan_name(mask: Mask) -> str:
    """Returns what tables call a plan that was decoded."""
    return f"plan {mask.key[:8]}"
