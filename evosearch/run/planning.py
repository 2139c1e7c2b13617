"""The best known network at any budget, also one that was never searched; nothing here is torch.

A search leaves more than its trials: a model of the loss fitted to them (`strategies.learned`).
The allocation decodes that model at any budget, the two-step fitness refines the channels, and
the plan is a prediction until it is measured.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from evosearch.errors import InputError, unknown_name
from evosearch.files import write_json, writing
from evosearch.space.budget import Budget, BudgetRequest, Cost
from evosearch.space.knowledge import Knowledge
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.space.text import load_space
from evosearch.strategies.learned import LossModel
from evosearch.study.certificate import Certificate
from evosearch.study.records import evaluation_from_json, evaluation_to_json
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation, Objective, Trial

PICKS = ("knee", "best", "smallest")
PLANS = "plans.json"
SPACE, KNOWLEDGE = "space.toml", "knowledge.npz"


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """A network that a run proposes for a budget.

    Attributes:
        mask: its channels.
        cost: its exact cost.
        trial: number of the trial that it is; None for one that was decoded.
        evaluation: as measured on the search split; None for a mere prediction.
        predicted_loss: on the search split, in nats, as the model of the trials sees it; None
            for a trial.
        predicted_high: the same and the model's error on top: one standard deviation of the
            logarithm of loss over prediction.
    """

    mask: Mask
    cost: Cost
    trial: int | None = None
    evaluation: Evaluation | None = None
    predicted_loss: float | None = None
    predicted_high: float | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"plan {self.mask.key[:8]}" if self.trial is None else f"trial {self.trial}"


def pick_plan(folder: Path, study: Study, pick: str | None, at: str | None) -> Plan:
    """Returns the plan that a user means.

    Args:
        folder: of the run.
        study: its study.
        pick: "knee", "best" (least loss), "smallest" or a trial's number; None for the trial that
            the run certified, or the smallest where the budget is an accuracy, or else the knee.
        at: a budget such as "flops=37%"; then the best known plan within it is meant.

    Raises:
        InputError: there is none.
    """
    if at is not None:
        if pick is not None:
            raise InputError(f"--pick {pick} and --at {at} each name a network: give one of them")
        return plan_at(folder, study, parse_at(at, study.header.base_cost))
    certificate = Certificate.load(folder)
    if pick is None and certificate is not None and certificate.winner is not None:
        pick = str(certificate.winner.trial)
    return _plan(_picked_trial(study, pick))


def _picked_trial(study: Study, pick: str | None) -> Trial:
    front = study.front()
    if pick is None:
        pick = "knee" if study.budget.least_accuracy is None else "smallest"
    if pick in PICKS:
        return {"knee": lambda: front.knee, "best": front.best, "smallest": front.smallest}[pick]()
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
    amounts: dict[str, str | None] = {"flops": None, "params": None}
    for item in text.split(","):
        name, equals, amount = item.partition("=")
        if not equals:
            raise InputError(f"--at {text!r}: expected NAME=AMOUNT, such as flops=50%")
        if name.strip() not in amounts:
            raise unknown_name("resource", name.strip(), amounts)
        amounts[name.strip()] = amount
    return BudgetRequest(flops=amounts["flops"], params=amounts["params"]).resolve(base)


def plan_at(folder: Path, study: Study, budget: Budget) -> Plan:
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
    space = load_space(folder / SPACE)
    space.require_reachable(budget.at(1.0))
    measured = [*_trials_within(study, budget), *_plans_within(folder, study, budget, space)]
    best = min(measured, key=_loss, default=None)
    decoded = decoded_plan(folder, study, budget)
    if decoded is None or any(decoded.mask == plan.mask for plan in measured):
        if best is None:
            raise InputError(
                "no trial of this run fits the budget asked for, and it has no model to decode a"
                " plan with; resume it with that budget"
            )
        return best
    if best is not None and (decoded.predicted_high or 0.0) >= _loss(best):
        return best
    return decoded


def decoded_plan(folder: Path, study: Study, budget: Budget) -> Plan | None:
    """Returns the plan that the trials predict to be best within a budget; it may be measured.

    Returns:
        None where the run has no sensitivities, and so no model.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    knowledge = Knowledge.load(folder / KNOWLEDGE)
    if not knowledge.sensitivity:
        return None
    space = load_space(folder / SPACE)
    model = LossModel(space, knowledge)
    weights = model.fit(study.trials).mean()
    mask = model.plan(weights, budget.at(1.0))
    loss = float(model.predict(model.layout.rows([mask]), weights)[0])
    complete = [trial for trial in study.trials if trial.is_complete]
    error = 0.0
    if complete:
        losses = np.array([Objective.LOSS.of(trial) for trial in complete])
        rows = model.layout.rows([trial.mask for trial in complete])
        predictions = np.maximum(model.predict(rows, weights), 1e-12)
        error = float(np.log(np.maximum(losses, 1e-12) / predictions).std())
    return Plan(
        mask=mask,
        cost=space.cost(mask),
        predicted_loss=loss,
        predicted_high=loss * float(np.exp(error)),
    )


def is_measured(folder: Path, study: Study, plan: Plan) -> bool:
    """Returns whether a decoded plan was measured already, as a trial or by itself."""
    masks = {trial.mask for trial in study.trials if trial.is_complete}
    stored = [Mask.from_json(entry["mask"], study.header.sizes) for entry in _stored(folder)]
    return plan.mask in masks.union(stored)


def remember_plan(folder: Path, plan: Plan) -> None:
    """Keeps a decoded plan with its evaluation, beside the study."""
    assert plan.evaluation is not None
    entry = {"mask": plan.mask.to_json(), "evaluation": evaluation_to_json(plan.evaluation)}
    kept = [old for old in _stored(folder) if old["mask"] != entry["mask"]]
    with writing(folder / PLANS):
        write_json(folder / PLANS, [*kept, entry])


def _trials_within(study: Study, budget: Budget) -> list[Plan]:
    return [_plan(trial) for trial in study.front().candidates if trial.violation(budget) == 0]


def _plan(trial: Trial) -> Plan:
    full = trial.evaluation if trial.is_complete else None
    return Plan(mask=trial.mask, cost=trial.cost, trial=trial.number, evaluation=full)


def _plans_within(folder: Path, study: Study, budget: Budget, space: SearchSpace) -> list[Plan]:
    plans = []
    for entry in _stored(folder):
        mask = Mask.from_json(entry["mask"], study.header.sizes)
        evaluation = evaluation_from_json(entry["evaluation"])
        cost = space.cost(mask)
        if budget.violation(cost, evaluation.accuracy) == 0:
            plans.append(Plan(mask=mask, cost=cost, evaluation=evaluation))
    return plans


def _stored(folder: Path) -> list[dict[str, Any]]:
    path = folder / PLANS
    stored: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return stored


def _loss(plan: Plan) -> float:
    assert plan.evaluation is not None
    return plan.evaluation.loss
