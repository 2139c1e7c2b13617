"""Which size to try next when the budget is an accuracy: the smallest network that keeps it.

After the pruning-rate controller of Play and Prune (Singh et al. 2019, arXiv 1905.04446): the
user gives a tolerated drop, and the step to a smaller network shrinks as the slack goes to zero.
"""

from collections.abc import Sequence

from evosearch.cost import Bound, Budget, Cost
from evosearch.records import Header, Segment
from evosearch.trial import Trial

SEGMENT_TRIALS = 12
"""At least so many trials at one size, and whole rounds."""
LARGEST_STEP, LEAST_STEP = 0.5, 0.1
"""Share of the size that a step takes off: with all of the drop left, and with nothing left."""
CLOSED = 1.05
"""Sizes whose ratio is under this are one: what fits is known that well."""
FURTHER = 0.97
"""Share of the smallest feasible size that is tried next when that is so."""


def next_aim(
    trials: Sequence[Trial],
    segments: Sequence[Segment],
    budget: Budget,
    header: Header,
    smallest: Cost,
) -> Budget:
    """Returns the budget that the next trials are proposed for.

    Between the smallest size known to keep the accuracy and the largest one below it that was
    tried in vain, the next is where the accuracy would be met if it fell evenly with the
    logarithm of the size. Before anything failed, the step down is in proportion to the slack.

    Args:
        trials: of the study.
        segments: its parts so far.
        budget: what the user asked for; has a least accuracy.
        header: of the study; its first reference is the base network.
        smallest: the smallest reachable cost.
    """
    floor, bound = budget.least_accuracy, budget.macs
    assert floor is not None
    assert bound is not None
    base_accuracy = header.references[0].evaluation.accuracy
    complete = [t for t in trials if t.is_complete and t.evaluation is not None]
    feasible = [t for t in complete if t.violation(budget) == 0]
    best = min(feasible, key=lambda t: t.cost.macs, default=None)
    size = bound.high if best is None else best.cost.macs
    accuracy = base_accuracy if best is None or not best.evaluation else best.evaluation.accuracy
    slack = accuracy - floor
    failed = _largest_in_vain(complete, segments, size)
    if failed is None:
        share = min(1.0, slack / max(base_accuracy - floor, 1e-9))
        target = size * (1 - max(LEAST_STEP, LARGEST_STEP * share))
    elif size < CLOSED * failed[0]:
        target = size * FURTHER
    else:
        low, lost = failed[0], floor - failed[1]
        fraction = min(0.75, max(0.25, slack / max(slack + lost, 1e-9)))
        target = size * (low / size) ** fraction
    macs = max(round(target), smallest.macs)
    return Budget(macs=Bound(low=macs, high=macs), params=budget.params)


def _largest_in_vain(
    complete: Sequence[Trial], segments: Sequence[Segment], size: int
) -> tuple[int, float] | None:
    """Returns the largest size below `size` that was aimed at, and the best accuracy there."""
    tried: dict[int, float] = {}
    ends = [segment.first for segment in segments[1:]] + [None]
    for segment, end in zip(segments, ends, strict=True):
        aimed = segment.aim.macs
        inside = [t for t in complete if t.number >= segment.first and t.number < (end or 1 << 60)]
        accuracies = [t.evaluation.accuracy for t in inside if t.evaluation is not None]
        if aimed is not None and aimed.high < size and accuracies:
            tried[aimed.high] = max(*accuracies, tried.get(aimed.high, 0.0))
    return max(tried.items(), default=None)
