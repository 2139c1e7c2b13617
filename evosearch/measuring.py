"""What a run measures on its base network before the first trial, and who measures."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from evosearch.cost import Bound, Budget
from evosearch.evaluation.base import Subject
from evosearch.evaluation.distillation import FinetuneConfig, distil
from evosearch.evaluation.evaluator import MaskEvaluator
from evosearch.knowledge import Knowledge
from evosearch.records import Reference
from evosearch.runconfig import SearchConfig
from evosearch.seeding import Stream, generator
from evosearch.space import SearchSpace
from evosearch.strategies import strategy_class
from evosearch.strategies.baselines import uniform_mask
from evosearch.strategies.two_step import TwoStep
from evosearch.trial import Evaluation

BASELINE_POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where in a range of budgets the baseline is measured."""

OnStage = Callable[[str], None]


def make_evaluator(
    config: SearchConfig, subject: Subject, finetune: FinetuneConfig
) -> MaskEvaluator:
    """Returns the evaluator of a run, its network on the run's device."""
    return MaskEvaluator(
        model=subject.model.to(config.device),
        discovery=subject.discovery,
        calibration=subject.data.calibration,
        search=subject.data.search,
        config=config.evaluator,
        seed=config.seed,
        task=subject.task,
        recover=_recovery(config, subject, finetune),
    )


def _recovery(
    config: SearchConfig, subject: Subject, finetune: FinetuneConfig
) -> Callable[[nn.Module], None] | None:
    """Returns the short recovery of candidates: one epoch of distillation on some images."""
    count = config.evaluator.recovery_images
    if count == 0:
        return None
    train = subject.data.train
    order = generator(config.seed, Stream.EVALUATION, "recovery").permutation(len(train))
    part, short = train.take(order[:count]), finetune.model_copy(update={"epochs": 1})

    def recover(network: nn.Module) -> None:
        search, task = subject.data.search, subject.task
        distil(subject.model, network, part, search, short, config.seed, task=task)

    return recover


def measure_knowledge(
    evaluator: MaskEvaluator, space: SearchSpace, search: SearchConfig, on_stage: OnStage
) -> Knowledge:
    """Measures on the base network what the run's strategy reads."""
    knowledge = evaluator.knowledge(sorted({"l1", search.criterion}))
    if strategy_class(search.strategy).needs_sensitivity:
        on_stage("sensitivity of each group")
        subset = TwoStep(space, knowledge.gram).subset
        curves = evaluator.sensitivity(subset, search.keep_ratios)
        knowledge = replace(knowledge, sensitivity=curves)
    return knowledge


def measure_references(
    evaluator: MaskEvaluator,
    space: SearchSpace,
    budget: Budget,
    base: Evaluation,
    knowledge: Knowledge,
) -> tuple[Reference, ...]:
    """Returns the base network, and measures the lowest-L1 uniform plans beside the search."""
    references = [
        Reference(name="base", mask=space.full_mask(), cost=space.base_cost, evaluation=base)
    ]
    for size in _baseline_budgets(space, budget):
        mask = uniform_mask(space, size, knowledge.scores["l1"])
        references.append(
            Reference(
                name="lowest-L1 uniform",
                mask=mask,
                cost=space.cost(mask),
                evaluation=evaluator.evaluate_plain(mask),
            )
        )
    return tuple(references)


def _baseline_budgets(space: SearchSpace, budget: Budget) -> list[Budget]:
    if budget.least_accuracy is not None and budget.macs is not None:
        least = space.smallest_cost.macs
        budget = Budget(macs=Bound(low=least, high=budget.macs.high))
    return [budget.at(x) for x in (BASELINE_POSITIONS if budget.is_range else (1.0,))]
