"""The protocol of an aim: what trials are proposed for, until measurements end it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.study.certificate import Certificate, Check
from evosearch.study.front import ParetoFront
from evosearch.study.records import Segment
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing
from evosearch.study.trial import Trial

TimeMasks = Callable[[Sequence[Mask]], list[Timing]]
"""Times the networks that masks leave against the base network, in a fresh process."""


class Aim(Protocol):
    """Meets one kind of budget. Stateless: what it decides, the study's records determine."""

    def next(
        self, study: Study, budget: Budget, smallest: Cost, checks: Sequence[Check]
    ) -> Budget:
        """Returns the budget that the next trials are proposed for.

        Args:
            study: the trials and segments so far.
            budget: what the user asks for.
            smallest: the smallest reachable cost.
            checks: what was measured of trials.
        """
        ...

    def is_due(self, segments: Sequence[Segment], trials: int) -> bool:
        """Returns whether it is time for another aim, after so many trials of the study."""
        ...

    def check(self, study: Study, time: TimeMasks) -> tuple[Check, ...]:
        """Measures what the next aim is to be corrected by; nothing where trials say enough."""
        ...

    def conclude(
        self, study: Study, time: TimeMasks, conditions: Conditions | None
    ) -> Certificate | None:
        """Measures whether the winner keeps the budget; None where that needs no measurement.

        Args:
            study: has the trials.
            time: measures.
            conditions: under which; None where nothing of the study was timed.
        """
        ...

    def winner(self, front: ParetoFront) -> Trial:
        """Returns the member of a front that the budget is for, where the user names none.

        Raises:
            InputError: the front is empty.
        """
        ...
