"""Aims: how a budget that cannot hold by construction is met; nothing here imports torch.

============  ==========================================================================
`base`        the protocol: the next size to try, when, by what measurements, and the end
`exact`       FLOPs and params: they hold by construction, so there is nothing to aim at
`accuracy`    a tolerated drop: the size shrinks as far as trials keep the accuracy
`latency`     a predicted time: corrected by timings, and certified by them
============  ==========================================================================
"""

from evosearch.aims.accuracy import AccuracyAim
from evosearch.aims.base import Aim
from evosearch.aims.exact import ExactAim
from evosearch.aims.latency import LatencyAim
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.study.latency_certificate import Check
from evosearch.study.study import Study


def aim_of(budget: Budget) -> Aim:
    """Returns how a budget is met."""
    if budget.least_accuracy is not None:
        return AccuracyAim()
    return LatencyAim() if budget.measured else ExactAim()


def begin_segment(
    study: Study, budget: Budget, smallest: Cost, checks: tuple[Check, ...] = ()
) -> None:
    """Begins the part of a study that serves a budget, at the size to try first.

    Args:
        study: gets the segment.
        budget: what is asked for from here on.
        smallest: the smallest reachable cost.
        checks: what was measured; without any, those of the segment before hold.

    Raises:
        StorageError: the study cannot be written.
    """
    checks = checks or study.segments[-1].checks
    study.begin_segment(budget, aim_of(budget).next(study, budget, smallest, checks), checks)
