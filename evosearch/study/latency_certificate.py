"""The certificate of a latency budget: the timings that say whether a run's winner keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self, final

from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import format_time
from evosearch.study.timing import Conditions, Timing


@dataclass(frozen=True, kw_only=True)
class Check:
    """A trial that was timed.

    Attributes:
        trial: its number.
        predicted: its picoseconds by the latency model.
        timing: as measured.
    """

    trial: int
    predicted: int
    timing: Timing

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads what `dataclasses.asdict` gave."""
        return cls(**{**data, "timing": Timing(**data["timing"])})


def interval(timing: Timing, budget: Budget, base_picoseconds: int) -> tuple[float, float]:
    """Returns the 95 % interval that a latency budget is judged on, in picoseconds.

    A share is judged on the ratio to the base network, which load on the machine hits alike; a
    time on the time.
    """
    if budget.relative_latency:
        return timing.ratio_low * base_picoseconds, timing.ratio_high * base_picoseconds
    return 1e12 * timing.low, 1e12 * timing.high


def corrected(budget: Budget, checks: Sequence[Check], base_picoseconds: int) -> Budget:
    """Returns a latency budget in the model's terms, corrected by what was measured.

    The correction is the median over the checks of the upper end of the measured interval over
    the prediction, so that what meets the aim can be certified.

    Args:
        budget: what the user asked for; has a latency.
        checks: trials that were timed; without any there is nothing to correct by.
        base_picoseconds: the base network's latency.
    """
    factors = [interval(c.timing, budget, base_picoseconds)[1] / c.predicted for c in checks]
    factor, asked = median(factors or [1.0]), budget.bounds["latency"]
    low, high = (max(1, int(end / factor)) for end in (asked.low, asked.high))
    return budget.but(latency=Bound(low=low, high=high))


@final
@dataclass(frozen=True, kw_only=True)
class LatencyCertificate:
    """What was measured of the trials that a latency budget was to be certified for.

    Attributes:
        budget: what was asked for.
        base_picoseconds: the base network's latency, which shares refer to.
        conditions: under which it was measured.
        attempts: the trials that were timed, in order, each in its slowest process; where the
            budget is certified, the last one keeps it.
        certified: whether the upper end of the last one's interval is under the budget.
    """

    budget: Budget
    base_picoseconds: int
    conditions: Conditions
    attempts: tuple[Check, ...]
    certified: bool

    @property
    def winner(self) -> Check | None:
        """The trial that keeps the budget."""
        return self.attempts[-1] if self.certified else None

    @property
    def trial(self) -> int | None:
        """The number of the trial that it is about; None where none keeps the budget."""
        return None if self.winner is None else self.winner.trial

    @property
    def limit(self) -> int:
        """The budget, in picoseconds."""
        return self.budget.bounds["latency"].high

    def __repr__(self) -> str:
        return f"LatencyCertificate({self})"

    def __str__(self) -> str:
        share = f"{self.limit / self.base_picoseconds:.1%} of the base network's"
        budget = share if self.budget.relative_latency else format_time(self.limit)
        if self.winner is not None:
            failed = f", after {len(self.attempts) - 1} that did not" if self.attempts[1:] else ""
            return (
                f"latency budget of {budget} certified: trial {self.winner.trial} takes at"
                f" most, in the slowest of several processes, {self.winner.timing}{failed}"
            )
        if not self.attempts:
            return f"latency budget of {budget} not certified: no trial is predicted to keep it"
        last = self.attempts[-1]
        low, _ = interval(last.timing, self.budget, self.base_picoseconds)
        reason = (
            "the budget is finer than the noise"
            if low <= self.limit
            else "the upper end of every interval is over it"
        )
        return (
            f"latency budget of {budget} not certified, {reason}: of {len(self.attempts)} trials"
            f" the last, trial {last.trial}, takes {last.timing}"
        )

    @classmethod
    def of_record(cls, budget: Budget, record: Mapping[str, Any]) -> Self:
        """Returns the certificate of a budget that `dataclasses.asdict` gave the rest of."""
        content = {
            "conditions": Conditions(**record["conditions"]),
            "attempts": tuple(Check.from_json(item) for item in record["attempts"]),
        }
        return cls(**{**record, **content, "budget": budget})
