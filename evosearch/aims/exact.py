"""The aim of a budget that holds by construction: every proposal is within it."""

from collections.abc import Sequence
from typing import final

from evosearch.aims.base import Measurer
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.study.certificate import Claim
from evosearch.study.front import ParetoFront
from evosearch.study.latency_certificate import Check
from evosearch.study.records import Segment
from evosearch.study.study import Study
from evosearch.study.trial import Trial


@final
class ExactAim:
    """Trials are proposed for the budget itself, and nothing is measured; see `Aim`."""

    def next(
        self,
        study: Study,  # noqa: ARG002
        budget: Budget,
        smallest: Cost,  # noqa: ARG002
        checks: Sequence[Check],  # noqa: ARG002
    ) -> Budget:
        """See `Aim.next`."""
        return budget

    def is_due(self, segments: Sequence[Segment], trials: int) -> bool:  # noqa: ARG002
        """See `Aim.is_due`."""
        return False

    def check(self, study: Study, measurer: Measurer) -> tuple[Check, ...]:  # noqa: ARG002
        """See `Aim.check`."""
        return ()

    def conclude(self, study: Study, measurer: Measurer, earlier: Sequence[Claim]) -> None:
        """See `Aim.conclude`."""

    def winner(self, front: ParetoFront) -> Trial:
        """See `Aim.winner`: the knee."""
        return front.knee
