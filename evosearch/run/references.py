"""The reference networks in a run's tables: the base network, and plans without a search."""

from evosearch.engine.evaluator import MaskEvaluator
from evosearch.space.budget import Bound, Budget
from evosearch.space.knowledge import Knowledge
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.stages import Countdown, OnStage
from evosearch.strategies.fixed_plans import global_mask, uniform_mask, uniform_widths
from evosearch.strategies.two_step import TwoStep
from evosearch.study.networks import NamedNetwork
from evosearch.study.trial import Evaluation

POSITIONS = (0.0, 0.5, 1.0)
"""Where in a range of budgets the plans are measured."""
PLAIN = "lowest-L1 uniform, recalibrated"
UNIFORM = "uniform, no search"
GLOBAL = "global, no search"


def measure_references(
    evaluator: MaskEvaluator,
    space: SearchSpace,
    budget: Budget,
    base: Evaluation,
    knowledge: Knowledge,
    criterion: str,
    on_stage: OnStage = lambda _: None,
) -> tuple[NamedNetwork, ...]:
    """Returns the base network, and measures plans without a search beside it.

    Those of `plans_without_search` are built as candidates are, so that what a searched network
    has above them is what the search adds. The lowest-L1 uniform plan, which is recalibrated and
    not compensated, is what pruning commonly means.

    Args:
        evaluator: measures.
        space: what is searched.
        budget: of the run; of a range, both ends and the middle are served.
        base: what the base network is worth.
        knowledge: has the Gram matrices, and the scores of L1 and of the criterion.
        criterion: of the run.
        on_stage: told how far it is.
    """
    networks = [
        NamedNetwork(name="base", mask=space.full_mask(), cost=space.base_cost, evaluation=base)
    ]

    def add(name: str, mask: Mask, evaluation: Evaluation) -> None:
        cost = space.cost(mask)
        networks.append(NamedNetwork(name=name, mask=mask, cost=cost, evaluation=evaluation))
        countdown.done(len(networks) - 1)

    sizes = _sizes(space, budget)
    countdown = Countdown(on_stage, "plans without a search", 3 * len(sizes), "networks")
    for size in sizes:
        plain = uniform_mask(space, size, knowledge.scores["l1"])
        add(PLAIN, plain, evaluator.evaluate_plain(plain))
        for name, mask in plans_without_search(space, size, knowledge, criterion).items():
            add(name, mask, evaluator.evaluate(mask))
    return tuple(networks)


def plans_without_search(
    space: SearchSpace, budget: Budget, knowledge: Knowledge, criterion: str
) -> dict[str, Mask]:
    """Returns, by name, plans whose widths no trial has decided; their channels are two-step ones.

    Args:
        space: what is searched.
        budget: its upper end is met.
        knowledge: has the Gram matrices and the scores of the criterion.
        criterion: its one threshold over all groups decides the widths of `GLOBAL`.

    Raises:
        InfeasibleBudget: no legal plan fits.
    """
    channels = TwoStep(space, knowledge.gram)
    ranked = global_mask(space, budget, knowledge.comparable[criterion])
    return {
        UNIFORM: channels.mask(uniform_widths(space, budget)),
        GLOBAL: channels.mask(space.widths(ranked)),
    }


def _sizes(space: SearchSpace, budget: Budget) -> list[Budget]:
    if budget.least_accuracy is not None:
        name = budget.shrunk
        low, high = RESOURCES[name].of(space.smallest_cost), budget.bounds[name].high
        budget = Budget(bounds={name: Bound(low=min(low, high), high=high)})
    return [budget.at(position) for position in (POSITIONS if budget.is_range else (1.0,))]
