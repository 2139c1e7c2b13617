"""The aim of an accuracy budget: the smallest network that keeps it, searched size by size.

After the pruning-rate controller of Play and Prune (Singh et al. 2019, arXiv 1905.04446): the user
gives a tolerated drop, and the step to a smaller network shrinks as the slack goes to zero.
"""

from collections.abc import Sequence
from typing import final

from evosearch.aims.base import TimeMasks
from evosearch.space.budget import BY_DROP, Bound, Budget
from evosearch.space.cost import Cost
from evosearch.study.certificate import Check
from evosearch.study.front import ParetoFront
from evosearch.study.records import Header, Segment
from evosearch.study.study import Study
from evosearch.study.timing import Conditions
from evosearch.study.trial import Trial

SEGMENT_TRIALS = 12
"""At least so many trials at one size, and whole rounds."""
LARGEST_STEP, LEAST_STEP = 0.5, 0.1
"""Share of the size that a step takes off: with all of the drop left, and with nothing left."""
CLOSED = 1.05
"""Sizes whose ratio is under this are one: what fits is known that well."""
FURTHER = 0.97
"""Share of the smallest feasible size that is tried next when that is so."""


@final
class AccuracyAim:
    """Trials are proposed for one size after another; see `Aim`."""

    def next(
        self,
        study: Study,
        budget: Budget,
        smallest: Cost,
        checks: Sequence[Check],  # noqa: ARG002
    ) -> Budget:
        """See `Aim.next`."""
        return next_size(study.trials, study.segments, budget, study.header, smallest)

    def is_due(self, segments: Sequence[Segment], trials: int) -> bool:
        """See `Aim.is_due`."""
        return trials - segments[-1].first >= SEGMENT_TRIALS

    def check(self, study: Study, time: TimeMasks) -> tuple[Check, ...]:  # noqa: ARG002
        """See `Aim.check`: trials are scored anyway."""
        return ()

    def conclude(self, study: Study, time: TimeMasks, conditions: Conditions | None) -> None:
        """See `Aim.conclude`."""

    def winner(self, front: ParetoFront) -> Trial:
        """See `Aim.winner`: the smallest."""
        return front.smallest()


def next_size(
    trials: Sequence[Trial],
    segments: Sequence[Segment],
    budget: Budget,
    header: Header,
    smallest: Cost,
) -> Budget:
    """Returns the size that is tried next.

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
    floor, bound = budget.least_accuracy, budget.bounds[BY_DROP]
    assert floor is not None
    base_accuracy = header.base.search.accuracy
    complete = [trial for trial in trials if trial.is_complete]
    feasible = [trial for trial in complete if trial.violation(budget) == 0]
    best = min(feasible, key=lambda trial: trial.cost.macs, default=None)
    size = bound.high if best is None else best.cost.macs
    slack = (base_accuracy if best is None else _accuracy(best)) - floor
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
    others = {name: other for name, other in budget.bounds.items() if name != BY_DROP}
    return Budget(bounds={BY_DROP: Bound(low=macs, high=macs), **others})


def _accuracy(trial: Trial) -> float:
    assert trial.evaluation is not None
    return trial.evaluation.score.accuracy


def _largest_in_vain(
    complete: Sequence[Trial], segments: Sequence[Segment], size: int
) -> tuple[int, float] | None:
    """Returns the largest size below `size` that was aimed at, and the best accuracy there."""
    tried: dict[int, float] = {}
    ends = [*(float(segment.first) for segment in segments[1:]), float("inf")]
    for segment, end in zip(segments, ends, strict=True):
        aimed = segment.aim.bounds.get(BY_DROP)
        accuracies = [_accuracy(t) for t in complete if segment.first <= t.number < end]
        if aimed is not None and aimed.high < size and accuracies:
            tried[aimed.high] = max(*accuracies, tried.get(aimed.high, 0.0))
    return max(tried.items(), default=None)
