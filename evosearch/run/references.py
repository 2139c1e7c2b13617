"""The reference networks in a run's tables: the base network, and plans without a search."""

from evosearch.engine.evaluator import MaskEvaluator
from evosearch.space.budget import BY_DROP, Bound, Budget
from evosearch.space.knowledge import Knowledge
from evosearch.space.space import SearchSpace
from evosearch.strategies.fixed_plans import uniform_mask
from evosearch.study.networks import NamedNetwork
from evosearch.study.trial import Evaluation

BASELINE_POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where in a range of budgets the baseline is measured."""


def measure_references(
    evaluator: MaskEvaluator,
    space: SearchSpace,
    budget: Budget,
    base: Evaluation,
    knowledge: Knowledge,
) -> tuple[NamedNetwork, ...]:
    """Returns the base network, and measures the lowest-L1 uniform plans beside the search."""
    references = [
        NamedNetwork(name="base", mask=space.full_mask(), cost=space.base_cost, evaluation=base)
    ]
    for size in _baseline_budgets(space, budget):
        mask = uniform_mask(space, size, knowledge.scores["l1"])
        references.append(
            NamedNetwork(
                name="lowest-L1 uniform",
                mask=mask,
                cost=space.cost(mask),
                evaluation=evaluator.evaluate_plain(mask),
            )
        )
    return tuple(references)


def _baseline_budgets(space: SearchSpace, budget: Budget) -> list[Budget]:
    if budget.least_accuracy is not None:
        least, most = space.smallest_cost.macs, budget.bounds[BY_DROP].high
        budget = Budget(bounds={BY_DROP: Bound(low=least, high=most)})
    return [budget.at(x) for x in (BASELINE_POSITIONS if budget.is_range else (1.0,))]
