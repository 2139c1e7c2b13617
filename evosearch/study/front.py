"""The Pareto front of loss against size, and how to pick one network from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import moocore
import numpy as np
from numpy.typing import NDArray

from evosearch.errors import InputError
from evosearch.space.budget import Budget
from evosearch.space.resources import Resource
from evosearch.study.trial import Rung, Trial


@dataclass(frozen=True, kw_only=True)
class ParetoFront:
    """The feasible trials, and which of them no other beats in both loss and size.

    Attributes:
        trials: all trials of a study, in order.
        budget: what is feasible: only trials that meet it enter the front.
        size: the resource that is the size axis.
    """

    trials: Sequence[Trial]
    budget: Budget
    size: Resource

    def __repr__(self) -> str:
        found = f"ParetoFront({len(self.members)} of {len(self.trials)} trials"
        if not self.members:
            return f"{found})"
        least, most = (self.size.shown(self.size.of(t.cost)) for t in self._ends)
        worst, best = (f"{trial.loss:.3f}" for trial in self._ends)
        return (
            f"{found}, {least} to {most}{self.size.unit}, loss {worst} to {best},"
            f" knee: trial {self.knee.number})"
        )

    @cached_property
    def candidates(self) -> tuple[Trial, ...]:
        """Feasible trials with a full evaluation, each mask once, in study order."""
        return tuple(
            trial
            for trial in self.trials
            if trial.evaluation is not None
            and trial.evaluation.rung is Rung.FULL
            and trial.duplicate_of is None
            and trial.violation(self.budget) == 0
        )

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Size and loss of every candidate, `(candidates, 2)`."""
        values = [[self.size.of(trial.cost), trial.loss] for trial in self.candidates]
        return np.array(values, dtype=np.float64).reshape(-1, 2)

    @cached_property
    def members(self) -> tuple[Trial, ...]:
        """The non-dominated candidates, smallest first; of equal points the earliest trial."""
        if not self.candidates:
            return ()
        keep = np.flatnonzero(moocore.is_nondominated(self.points, keep_weakly=False))
        order = keep[np.argsort(self.points[keep, 0], kind="stable")]
        return tuple(self.candidates[i] for i in order)

    @property
    def dominated(self) -> tuple[Trial, ...]:
        """The candidates that are not in the front, in study order."""
        front = {trial.number for trial in self.members}
        return tuple(trial for trial in self.candidates if trial.number not in front)

    def hypervolume(self, reference: tuple[float, float]) -> float:
        """Returns the share of the box under `reference` that the front dominates.

        Args:
            reference: the worst (size, loss) that counts, both positive; points beyond it add
                nothing. Both axes are divided by it, so the result is in [0, 1).
        """
        if not self.members:
            return 0.0
        scaled = self.points / np.asarray(reference)
        return float(moocore.hypervolume(scaled, ref=[1.0, 1.0]))

    @cached_property
    def knee(self) -> Trial:
        """The member farthest below the line between the front's two ends, both axes in [0, 1].

        Raises:
            InputError: the front is empty.
        """
        self._require_members()
        values = np.array([[self.size.of(t.cost), t.loss] for t in self.members])
        spread = np.ptp(values, axis=0)
        scaled = (values - values.min(axis=0)) / np.where(spread > 0, spread, 1)
        return self.members[int(np.argmin(scaled.sum(axis=1)))]

    def smallest(self) -> Trial:
        """Returns the smallest member.

        Raises:
            InputError: the front is empty.
        """
        self._require_members()
        return self.members[0]

    def best(self) -> Trial:
        """Returns the trial of least loss.

        Raises:
            InputError: the front is empty.
        """
        self._require_members()
        return self.members[-1]

    @property
    def _ends(self) -> tuple[Trial, Trial]:
        return self.members[0], self.members[-1]

    def _require_members(self) -> None:
        if not self.members:
            raise InputError("the run has no feasible evaluated trial yet; resume it for longer")
