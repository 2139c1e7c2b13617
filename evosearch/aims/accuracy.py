"""The aim of an accuracy budget: the smallest network that keeps it, searched size by size.

After the pruning-rate controller of Play and Prune (Singh et al. 2019, arXiv 1905.04446): the user
gives a tolerated drop, and the step to a smaller network shrinks as the slack goes to zero.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

from evosearch.aims.base import Measurer
from evosearch.aims.latency import CHECKED, certificate, timed
from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import Cost
from evosearch.space.resources import RESOURCES
from evosearch.study.accuracy_certificate import (
    AccuracyCertificate,
    Confirmation,
    ConfirmedDrop,
    claims_beside,
    limit_of,
)
from evosearch.study.certificate import Claim
from evosearch.study.front import ParetoFront
from evosearch.study.latency_certificate import Check, corrected
from evosearch.study.records import Header, Segment
from evosearch.study.study import Study
from evosearch.study.trial import Trial

SEGMENT_TRIALS = 12
"""At least so many trials at one size, and whole rounds."""
LARGEST_STEP, LEAST_STEP = 0.25, 0.1
"""Share of the size that a step takes off: with all of the drop left, and with nothing left. As
the certificate ends at a larger size than the search does, every size must have good networks."""
CLOSED = 1.05
"""Sizes whose ratio is under this are one: what fits is known that well."""
FURTHER = 0.97
"""Share of the smallest feasible size that is tried next when that is so."""
SAME_SIZE = 0.85
"""Of the trials with at least this share of the largest one's size, one is confirmed."""


@final
class AccuracyAim:
    """Trials are proposed for one size after another; see `Aim`."""

    def next(
        self,
        study: Study,
        budget: Budget,
        smallest: Cost,
        checks: Sequence[Check],
    ) -> Budget:
        """See `Aim.next`."""
        if budget.measured:
            budget = corrected(budget, checks, study.header.base_cost.latency)
        return next_size(study.trials, study.segments, budget, study.header, smallest)

    def is_due(self, segments: Sequence[Segment], trials: int) -> bool:
        """See `Aim.is_due`."""
        return trials - segments[-1].first >= SEGMENT_TRIALS

    def check(self, study: Study, measurer: Measurer) -> tuple[Check, ...]:
        """See `Aim.check`: trials are scored anyway; a latency is timed of the smallest.

        That is the one whose size is claimed in the end. It joins those that were timed last.
        """
        front = study.front()
        known = study.segments[-1].checks
        if not study.requested.measured or not front.members:
            return ()
        smallest = front.smallest()
        if smallest.number in {check.trial for check in known}:
            return ()
        return (*known, *timed([smallest], measurer))[-CHECKED:]

    def conclude(
        self, study: Study, measurer: Measurer, earlier: Sequence[Claim]
    ) -> AccuracyCertificate:
        """Measures ever smaller trials on the confirmation split, until one fails.

        The trials were selected on the search split, where the smallest that seems to keep the
        accuracy owes some of it to chance. Here each is held to the exact one-sided 95 % bound of
        its paired difference to the base network. The order is fixed before any is measured, from
        the largest down, and the first that fails ends it: so all tests together err as rarely as
        one, without a correction (fixed-sequence testing, Maurer, Hothorn and Lehmacher 1995;
        where the first fails, its own bound is a claim that holds as surely, Hsu and Berger 1999).
        From the smallest up, each of n tests would have to err n times as rarely, which few
        hundred images cannot show.

        The one that is claimed is then timed, where the budget has a latency: its own, which no
        other trial is tried in place of.

        Where even a network that is right on the same images as the base network cannot be
        certified to lose no more than asked, trials are held to what can be certified.
        """
        budget, images = study.requested, measurer.confirmation_images
        assert budget.least_accuracy is not None
        asked = study.header.base.search.accuracy - budget.least_accuracy
        limit = limit_of(asked, images)
        attempts: list[Confirmation] = []
        front = study.front(RESOURCES[budget.shrunk])
        for trial in confirmation_sequence(front) if images else ():
            drop = ConfirmedDrop.of(*measurer.confirm(trial.mask))
            attempts.append(Confirmation(trial=trial.number, drop=drop))
            if drop.bound > limit:
                break
        new = AccuracyCertificate(
            budget=budget,
            drop=asked,
            images=images,
            attempts=tuple(attempts),
            earlier=claims_beside(earlier, tuple(attempts)),
        )
        known = [claim for claim in earlier if isinstance(claim, AccuracyCertificate)]
        # Networks that were claimed since do not make it another one.
        same = bool(known) and replace(known[-1], earlier=new.earlier, latency=None) == new
        if same:
            return known[-1]
        if not budget.measured or new.winner is None:
            return new
        winner = study.trials[new.winner.trial]
        return replace(new, latency=certificate(study, [winner], measurer))

    def winner(self, front: ParetoFront) -> Trial:
        """See `Aim.winner`: the smallest."""
        return front.smallest()


def confirmation_sequence(front: ParetoFront) -> list[Trial]:
    """Returns the trials that are confirmed, in order: of every size the one of least loss.

    Every step down risks to end at a network that is good enough, so each must be worth it.

    Args:
        front: of a study; of its candidates the largest ones need not be members.
    """
    sequence: list[Trial] = []
    largest = float("inf")
    size = front.size.of
    for trial in sorted(front.candidates, key=lambda t: size(t.cost), reverse=True):
        if size(trial.cost) < SAME_SIZE * largest:
            largest = size(trial.cost)
            sequence.append(trial)
        elif trial.loss < sequence[-1].loss:
            sequence[-1] = trial
    return sequence


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
    floor, shrunk = budget.least_accuracy, RESOURCES[budget.shrunk]
    bound = budget.bounds[shrunk.name]
    assert floor is not None
    base_accuracy = header.base.search.accuracy
    complete = [trial for trial in trials if trial.is_complete]
    feasible = [trial for trial in complete if trial.violation(budget) == 0]
    best = min(feasible, key=lambda trial: shrunk.of(trial.cost), default=None)
    size = bound.high if best is None else shrunk.of(best.cost)
    slack = (base_accuracy if best is None else _accuracy(best)) - floor
    failed = _largest_in_vain(complete, segments, shrunk.name, size)
    if best is None and bound.high < shrunk.of(header.base_cost):
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
    aimed = max(round(target), shrunk.of(smallest))
    others = {name: other for name, other in budget.bounds.items() if name != shrunk.name}
    return Budget(bounds={shrunk.name: Bound(low=aimed, high=aimed), **others})


def _accuracy(trial: Trial) -> float:
    assert trial.evaluation is not None
    return trial.evaluation.score.accuracy


def _largest_in_vain(
    complete: Sequence[Trial], segments: Sequence[Segment], resource: str, size: int
) -> tuple[int, float] | None:
    """Returns the largest size below `size` that was aimed at, and the best accuracy there."""
    tried: dict[int, float] = {}
    ends = [*(float(segment.first) for segment in segments[1:]), float("inf")]
    for segment, end in zip(segments, ends, strict=True):
        aimed = segment.aim.bounds.get(resource)
        accuracies = [_accuracy(t) for t in complete if segment.first <= t.number < end]
        if aimed is not None and aimed.high < size and accuracies:
            tried[aimed.high] = max(*accuracies, tried.get(aimed.high, 0.0))
    return max(tried.items(), default=None)
