"""The finalists of a run: which plans are trained side by side, and near which budget."""

from pathlib import Path

from evosearch.errors import InputError
from evosearch.run.compared import Compared
from evosearch.run.folder import RunFolder
from evosearch.run.planning import NEAR, parse_at, plans_near
from evosearch.run.preparation import Prepared
from evosearch.space.budget import Budget
from evosearch.space.resources import RESOURCES
from evosearch.space.text import load_space
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study

CONTROL = 0
"""Index of the plan without a search among finalists."""


def budget_of_finals(folder: Path, study: Study, at: str | None) -> tuple[Budget, str]:
    """Returns the budget that finals are for, and its name.

    Args:
        folder: of the run.
        study: of the run.
        at: as the user wrote it; None is the upper end of the run's.

    Raises:
        InputError: it is no budget of FLOPs or params, or no network is so small.
    """
    if at is not None:
        budget = parse_at(at, study.header.base_cost)
        load_space(RunFolder(folder).space).require_reachable(budget.at(1.0))
        return budget, at
    own = study.requested
    if own.measured or own.least_accuracy is not None:
        raise InputError(
            "this run has no budget of FLOPs or params that plans could be near to: give --finals"
            " an --at flops=50%"
        )
    limits = [(RESOURCES[name], bound.high) for name, bound in own.bounds.items()]
    words = ",".join(f"{limit.option}={limit.shown(high)}" for limit, high in limits)
    return own.at(1.0), words


def choose_finalists(
    folder: Path,
    study: Study,
    prepared: Prepared,
    budget: Budget,
    words: str,
    control: Compared,
    count: int,
) -> tuple[NamedNetwork, ...]:
    """Returns the plan without a search, and the best others near a budget.

    Args:
        folder: of the run.
        study: of the run.
        prepared: what the run works with.
        budget: what plans are near to.
        words: its name.
        control: the plan without a search.
        count: of the finalists.

    Raises:
        InputError: there are too few.
    """
    near = [p for p in plans_near(folder, study, budget) if p.mask != control.mask]
    if len(near) < count - 1:
        raise InputError(
            f"--finals {count} takes {count - 1} plans beside {control.name!r}; the run has"
            f" {len(near)} others within {words} that use {1 - NEAR:.0%} of it or more: ask for"
            " fewer, give another --at, or resume the search"
        )
    unsearched = NamedNetwork(
        name=control.name,
        mask=control.mask,
        cost=prepared.subject.discovery.space.cost(control.mask),
        evaluation=prepared.evaluator.evaluate(control.mask),
    )
    return (unsearched, *near[: count - 1])
