"""What trials are proposed for where the budget is measured: an accuracy, or a latency.

The smallest network that keeps an accuracy is searched size by size, after the pruning-rate
controller of Play and Prune (Singh et al. 2019, arXiv 1905.04446): the user gives a tolerated
drop, and the step to a smaller network shrinks as the slack goes to zero. A latency is predicted
by a model, which timings of the front correct now and then.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from evosearch.space.budget import Bound, Budget, Cost
from evosearch.study.certificate import Check, interval
from evosearch.study.records import Header, Segment
from evosearch.study.trial import Trial

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
    logarithm of the size. Before anything failed, the step down is in proportion to the slack;
    from a bound of the user's own only once something met it.

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
    if best is None and bound.high < header.base_cost.macs:
        target = float(size)
    elif failed is None:
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


def corrected_aim(budget: Budget, checks: Sequence[Check], base_picoseconds: int) -> Budget:
    """Returns a latency budget in the model's terms, corrected by what was measured.

    The correction is the median over the checks of the upper end of the measured interval over
    the prediction, so that what meets the aim can be certified.

    Args:
        budget: what the user asked for; has a latency.
        checks: trials that were timed; without any there is nothing to correct by.
        base_picoseconds: the base network's latency.
    """
    assert budget.latency is not None
    factors = [interval(c.timing, budget, base_picoseconds)[1] / c.predicted for c in checks]
    amount = max(1, int(budget.latency.high / median(factors or [1.0])))
    return replace(budget, latency=Bound(low=amount, high=amount))


def is_due(segments: Sequence[Segment], trials: int) -> bool:
    """Returns whether it is time for another aim, if the budget is aimed at and not exact.

    With a latency, parts double in length: every new aim has the strategy begin anew.
    """
    open_segment = segments[-1]
    tried = trials - open_segment.first
    if open_segment.budget.latency is not None:
        return tried >= max(SEGMENT_TRIALS, open_segment.first)
    return open_segment.budget.least_accuracy is not None and tried >= SEGMENT_TRIALS


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
