"""The protocol of an aim: what trials are proposed for, until measurements end it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.study.certificate import Certificate, Claim
from evosearch.study.front import ParetoFront
from evosearch.study.latency_certificate import Check
from evosearch.study.records import Segment
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing
from evosearch.study.trial import Trial

Metrics = NDArray[np.float64]
"""The task's metric of every confirmation image, in [0, 1], `(images,)`."""


class Measurer(Protocol):
    """Measures of the networks that masks leave what the search does not."""

    @property
    def conditions(self) -> Conditions | None:
        """Under which latency is measured; None where the run has no latency."""
        ...

    @property
    def confirmation_images(self) -> int:
        """Number of images of the confirmation split."""
        ...

    def time(self, masks: Sequence[Mask]) -> list[Timing]:
        """Times networks against the base network, in a fresh process."""
        ...

    def confirm(self, mask: Mask) -> tuple[Metrics, Metrics]:
        """Returns the metrics of the base network, and of the finished network of a mask."""
        ...


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

    def check(self, study: Study, measurer: Measurer) -> tuple[Check, ...]:
        """Measures what the next aim is to be corrected by; nothing where trials say enough."""
        ...

    def conclude(
        self, study: Study, measurer: Measurer, earlier: Sequence[Claim]
    ) -> Certificate | None:
        """Measures whether the winner keeps the budget; None where that needs no measurement.

        Args:
            study: has the trials.
            measurer: measures.
            earlier: what was claimed before, of this and of other budgets, and of networks.
        """
        ...

    def winner(self, front: ParetoFront) -> Trial:
        """Returns the member of a front that the budget is for, where the user names none.

        Raises:
            InputError: the front is empty.
        """
        ...
