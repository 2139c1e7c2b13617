"""A run on disk without torch: a study of toy trials, with every file that a report reads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from evosearch.export.card import network_json
from evosearch.space.budget import BudgetRequest
from evosearch.space.costform import LatencyTerm, Monomial
from evosearch.space.mask import Mask
from evosearch.space.space import FrozenGroup, SearchSpace
from evosearch.space.text import space_to_toml
from evosearch.study.finals import Finalist, Finals
from evosearch.study.identity import Identity
from evosearch.study.networks import NamedNetwork
from evosearch.study.pairedgain import PairedGain
from evosearch.study.records import Header
from evosearch.study.scores import Score
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation, Rung, Step, Trial, TrialState
from tests.toys import IDENTITY, ToyEvaluator, toy_space

ODD = "</script><b>&\"'"
"""What must never be read as HTML."""


HALVES = BudgetRequest.of(flops="20%..80%")


def toy_run(
    folder: Path,
    trials: int,
    *,
    seed: int = 0,
    strategy: str = "rates",
    request: BudgetRequest = HALVES,
    space: SearchSpace | None = None,
    least_accuracy: float | None = None,
    scored: bool = True,
    base_loss: float | None = None,
    identity: Identity = IDENTITY,
) -> Study:
    """Writes a run: every eighth trial fails, every eighth was stopped, every eighth repeats."""
    space = space or with_frozen(toy_space())
    folder.mkdir(parents=True)
    evaluator = ToyEvaluator(failing=False)
    full = space.full_mask()
    base = evaluator.evaluation(full)
    if base_loss is not None:
        base = replace(base, score=replace(base.score, loss=base_loss))
    budget = request.resolve(space.base_cost)
    if least_accuracy is not None:
        budget = replace(budget, least_accuracy=least_accuracy)
    study = Study.create(
        folder,
        Header(
            space_digest=space.digest,
            config_digest="",
            sizes=space.sizes,
            least_widths=dict(zip(space.sizes, space.least_widths.tolist(), strict=True)),
            budget=budget,
            base_cost=space.base_cost,
            strategy=strategy,
            seed=seed,
            identity=identity,
            references=(
                NamedNetwork(name="base", mask=full, cost=space.base_cost, evaluation=base),
            ),
        ),
    )
    rng = np.random.default_rng(seed)
    store = ScoreStore(folder / "scores")
    if scored:
        store.put(full, evaluator.image_scores(full, 0, evaluator.images))
    for number in range(trials):
        trial = _trial(number, space, study, evaluator, rng)
        study.append(trial)
        if scored and trial.is_complete:
            store.put(trial.mask, evaluator.image_scores(trial.mask, 0, evaluator.images))
    (folder / "config.toml").write_text(f"seed = {seed}\n# {ODD}\n")
    (folder / "space.toml").write_text(space_to_toml(space))
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "platform": ODD}))
    return study


def with_frozen(space: SearchSpace) -> SearchSpace:
    """Returns the space with a frozen part whose name is not to be trusted."""
    frozen = (FrozenGroup(name="head", size=10, reason=f"network output {ODD}"),)
    return replace(space, frozen=frozen)


def timed_space() -> SearchSpace:
    """Returns the toy space with a latency model: 1 ms and 0.5 ms for each channel of `stem`."""
    terms = (
        LatencyTerm(name="overhead", picoseconds=(Monomial(1_000_000_000),)),
        LatencyTerm(name="first", picoseconds=(Monomial(500_000_000, ("stem",)),)),
    )
    return replace(toy_space(), latency=terms)


def write_card(folder: Path, plan: str, space: SearchSpace | None = None) -> None:
    """Writes the plan and the card of an artifact, with one distilled network on it."""
    space = space or toy_space()
    half = BudgetRequest.of(flops="50%").resolve(space.base_cost)
    mask = space.sample(np.random.default_rng(8), half)
    score = Score(loss=0.5, loss_se=0.1, accuracy=0.75, accuracy_se=0.04, images=100)
    distilled = NamedNetwork(
        name=f"{plan}, distilled 2 epochs",
        mask=mask,
        cost=space.cost(mask),
        evaluation=Evaluation(score=score, seconds=0.1),
        test=replace(score, accuracy=0.7),
    )
    card = {"plan": plan, "networks": [network_json(distilled, space.base_cost)]}
    place = folder / "artifacts" / plan.replace(" ", "-")
    place.mkdir(parents=True)
    (place / "card.json").write_text(json.dumps(card))
    (place / "plan.json").write_text(json.dumps({"keep": mask.to_json(), "sizes": space.sizes}))


def write_finals(folder: Path, space: SearchSpace | None = None) -> Finals:
    """Writes the record of finals of three networks, which their losses order as training does."""
    space = space or toy_space()
    half = BudgetRequest.of(flops="50%").resolve(space.base_cost)
    score = Score(loss=0.5, loss_se=0.1, accuracy=0.75, accuracy_se=0.04, images=100)
    finalists = []
    for number, epochs in enumerate((2, 2, 1)):
        mask = space.sample(np.random.default_rng(number), half)
        own = replace(score, loss=0.5 + number, accuracy=0.75 - number / 10)
        plan = NamedNetwork(
            name=f"trial {number}",
            mask=mask,
            cost=space.cost(mask),
            evaluation=Evaluation(score=own, seconds=0.0),
        )
        history = (own,) * (epochs + 1)
        finalists.append(Finalist(plan=plan, history=history, best_epoch=epochs))
    finals = Finals(
        at=ODD,
        epochs=2,
        finalists=tuple(finalists),
        rival=1,
        winner=0,
        test=replace(score, accuracy=0.7),
        gain=PairedGain(images=100, gained=4, lost=2, low=-0.03, high=0.07),
        confirmed=None,
        image_macs=1_234_000,
    )
    place = folder / "finals" / "toy"
    place.mkdir(parents=True)
    finals.save(place)
    return finals


def _trial(
    number: int,
    space: SearchSpace,
    study: Study,
    evaluator: ToyEvaluator,
    rng: np.random.Generator,
) -> Trial:
    mask: Mask = space.sample(rng, study.budget)
    kind = number % 8
    earlier = study.trials[0] if kind == 6 else None
    if earlier is not None:
        mask = earlier.mask
    cost = space.cost(mask)
    evaluation = earlier.evaluation if earlier is not None else evaluator.evaluation(mask)
    assert evaluation is not None
    steps = [
        Step(rung=Rung.TWO_STEP, score=1 - evaluation.score.accuracy, images=0, seconds=0.01),
        Step(
            rung=Rung.PARTIAL,
            score=evaluation.score.loss + 0.01 * rng.random(),
            images=20,
            seconds=0.1,
        ),
        Step(rung=Rung.FULL, score=evaluation.score.loss, images=100, seconds=0.5),
    ]
    outcome: dict[str, object] = {
        "state": TrialState.COMPLETE,
        "evaluation": evaluation,
        "steps": tuple(steps),
    }
    if kind == 7:
        outcome = {"state": TrialState.FAIL, "error": "out of memory"}
    elif kind == 5:
        outcome = {"state": TrialState.PRUNED, "steps": tuple(steps[:2])}
    return Trial(
        number=number,
        generation=number // 4,
        mask=mask,
        genome={"pool": {"COST": 4}},
        cost=cost,
        duplicate_of=None if earlier is None else earlier.number,
        **outcome,  # type: ignore[arg-type]
    )
