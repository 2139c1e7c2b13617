"""The networks beside a plan: the base network, and plans of the same budget."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from evosearch.run.planning import parse_at
from evosearch.run.preparation import Prepared
from evosearch.run.references import GLOBAL, PLAIN, plans_without_search
from evosearch.run.subject import Subject
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.strategies.fixed_plans import uniform_mask
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Score
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation
from evosearch.tasks.scoring import score


@final
@dataclass(frozen=True, kw_only=True)
class Compared:
    """A network of some channels, by the name that it is measured under.

    Attributes:
        name: what tables and the ledger of the test split call it.
        mask: its channels.
        network: as it is measured.
        cost: of the network, where its channels do not say it all.
    """

    name: str
    mask: Mask
    network: nn.Module
    cost: Cost | None = None


def base_of(prepared: Prepared) -> Compared:
    """Returns the base network of a run."""
    mask = prepared.subject.discovery.space.full_mask()
    return Compared(name="base network", mask=mask, network=prepared.subject.model)


def built(prepared: Prepared, name: str, mask: Mask) -> Compared:
    """Returns the network that a mask is worth keeping as, before any training."""
    return Compared(name=name, mask=mask, network=prepared.evaluator.builder.final(mask))


def compared_budget(
    study: Study, prepared: Prepared, plan: NamedNetwork, at: str | None
) -> tuple[Budget, str]:
    """Returns the budget that a plan is compared at, and its name.

    Args:
        study: of the run.
        prepared: what the run works with.
        plan: the network that was picked.
        at: the budget that it was picked for; None where it was picked by itself, and then the
            budget is its own cost.
    """
    if at is not None:
        return parse_at(at, prepared.subject.discovery.space.base_cost), at
    own = {name: getattr(plan.cost, name) for name in study.budget.bounds}
    return Budget.exactly(**own), f"cost of {plan.name}"


def plain_within(prepared: Prepared, budget: Budget, at: str) -> Compared:
    """Returns the lowest-L1 uniform plan, recalibrated alone: what pruning commonly means.

    Args:
        prepared: what a run works with.
        budget: its upper end is met.
        at: the budget for its name.
    """
    space = prepared.subject.discovery.space
    mask = uniform_mask(space, budget, prepared.knowledge.scores["l1"])
    network = prepared.evaluator.builder.plain(mask)
    return Compared(name=f"{PLAIN}, {at}", mask=mask, network=network)


def global_within(prepared: Prepared, budget: Budget, at: str) -> Compared:
    """Returns the plan of one global threshold, built as the searched network is.

    What the searched one has above it, before or after the same training, is what the search adds.

    Args:
        prepared: what a run works with.
        budget: its upper end is met.
        at: the budget for its name.
    """
    space, criterion = prepared.subject.discovery.space, prepared.config.search.criterion
    mask = plans_without_search(space, budget, prepared.knowledge, criterion)[GLOBAL]
    return built(prepared, f"{GLOBAL}, {at}", mask)


def measured(
    subject: Subject,
    compared: Sequence[Compared],
    test: Callable[[Compared], Score | None] = lambda _: None,
) -> tuple[NamedNetwork, ...]:
    """Returns networks with their scores on the search split, and with those that `test` gives."""
    networks = []
    for item in compared:
        began = time.perf_counter()
        result = score(item.network, subject.data.search, task=subject.task)
        evaluation = Evaluation(score=result, seconds=time.perf_counter() - began)
        networks.append(
            NamedNetwork(
                name=item.name,
                mask=item.mask,
                cost=item.cost or subject.discovery.space.cost(item.mask),
                evaluation=evaluation,
                test=test(item),
            )
        )
    return tuple(networks)
