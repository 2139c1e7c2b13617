"""The fitness ladder: a round of candidates climbs it, and most do not come to the top.

The strategy takes the first two rungs (exact cost, two-step error) before it proposes. What
follows is measured: the compensated error, then the loss on growing parts of the search split,
as EvoPress selects in steps (Sieberling et al. 2025, arXiv 2410.14649). Only what reaches the
whole split can enter the front.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from evosearch.engine.executor import Measured
from evosearch.engine.measurements import Measurements
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import Resource
from evosearch.space.space import SearchSpace
from evosearch.strategies.base import RungPlan
from evosearch.strategies.selection import nsga2
from evosearch.study.scores import ImageScores
from evosearch.study.trial import Evaluation, Proposal, Rung, Step, Trial, TrialState

CLEARLY = 2.0
"""A paired loss difference of more standard errors than this is no accident."""


@final
@dataclass(eq=False, kw_only=True)
class _Candidate:
    """A proposal on its way up."""

    proposal: Proposal
    cost: Cost
    size: float
    steps: list[Step] = field(default_factory=list)
    scores: ImageScores | None = None
    failure: str | None = None

    def record(self, rung: Rung, measured: Measured) -> None:
        """Takes what a rung measured."""
        self.failure = measured.failure
        score = measured.error
        if measured.scores is not None:
            self.scores = measured.scores
            score = measured.scores.loss
        if score is not None:
            images = 0 if measured.scores is None else len(measured.scores.losses)
            step = Step(rung=rung, score=score, images=images, seconds=measured.seconds)
            self.steps.append(step)

    def trial(self, number: int, generation: int) -> Trial:
        """Returns what came of it."""
        rung = self.steps[-1].rung if self.steps else Rung.COST
        evaluation = None
        if self.scores is not None:
            seconds = sum(step.seconds for step in self.steps)
            evaluation = Evaluation(score=self.scores.score, seconds=seconds, rung=rung)
        state = TrialState.COMPLETE if rung is Rung.FULL else TrialState.PRUNED
        return Trial(
            number=number,
            generation=generation,
            mask=self.proposal.mask,
            genome=self.proposal.genome,
            cost=self.cost,
            state=state if self.failure is None else TrialState.FAIL,
            evaluation=evaluation if self.failure is None else None,
            steps=tuple(self.steps),
            error=self.failure,
        )


@final
class Ladder:
    """Climbs rounds of proposals, one after another."""

    def __init__(
        self,
        *,
        space: SearchSpace,
        plans: Sequence[RungPlan],
        size: Resource,
        measurements: Measurements,
    ) -> None:
        """Takes what the rungs are and who measures.

        Args:
            space: what is searched.
            plans: the rungs between the strategy's own and the last, in order.
            size: what candidates are compared in beside the loss.
            measurements: what is measured above the strategy's own rungs.
        """
        self._space, self._plans, self._size = space, plans, size
        self._measurements = measurements

    def climb(
        self,
        proposals: Sequence[Proposal],
        *,
        first: int,
        generation: int,
        started: Sequence[Trial],
        front: Sequence[Trial],
        known: Mapping[Mask, Trial],
        asked_in: float,
    ) -> Iterator[Trial]:
        """Yields the trials of a round, in order, each as soon as it is settled.

        What becomes of a proposal depends on the whole round and on what is known before it, not
        on where an earlier session was cut: a cut round is climbed again, with scores from the
        store.

        Args:
            proposals: the whole round.
            first: number of its first trial.
            generation: its number.
            started: trials of this round that are recorded already; not yielded again.
            front: the front before the round, smallest first: the incumbents of the races.
            known: the first trial of each mask before the round.
            asked_in: seconds that the strategy took, for the first two rungs.
        """
        candidates: dict[Mask, _Candidate] = {}
        for proposal in proposals:
            if proposal.mask not in known and proposal.mask not in candidates:
                candidate = self._candidate(proposal, asked_in / len(proposals))
                candidates[proposal.mask] = candidate
        climbing = list(candidates.values())
        for plan in self._plans:
            climbing = self._survivors(plan, climbing, front)
        settled = {trial.mask: trial for trial in reversed(started)}
        climbing = [c for c in climbing if c.proposal.mask not in settled]
        top = {c.proposal.mask for c in climbing}
        evaluations = self._measurements.scores(
            [candidate.proposal.mask for candidate in climbing], self._measurements.images
        )
        for number, proposal in enumerate(proposals[len(started) :], first + len(started)):
            mask = proposal.mask
            earlier = known.get(mask) or settled.get(mask)
            if earlier is not None:
                yield _repeated(earlier, proposal, number, generation)
                continue
            if mask in top:
                candidates[mask].record(Rung.FULL, next(evaluations))
            settled[mask] = candidates[mask].trial(number, generation)
            yield settled[mask]

    def _candidate(self, proposal: Proposal, seconds: float) -> _Candidate:
        cost = self._space.cost(proposal.mask)
        candidate = _Candidate(proposal=proposal, cost=cost, size=float(self._size.of(cost)))
        if proposal.two_step is not None:
            candidate.steps.append(
                Step(rung=Rung.TWO_STEP, score=proposal.two_step, images=0, seconds=seconds)
            )
        return candidate

    def _survivors(
        self, plan: RungPlan, climbing: list[_Candidate], front: Sequence[Trial]
    ) -> list[_Candidate]:
        """Returns who climbs on: no failure, no clear loser, and the best in loss and size."""
        partial = plan.rung is Rung.PARTIAL
        if len(climbing) <= plan.survivors and not partial:
            return climbing
        images = plan.images(self._measurements.images)
        masks = [candidate.proposal.mask for candidate in climbing]
        results = (
            self._measurements.scores(masks, images)
            if partial
            else self._measurements.errors(masks)
        )
        for candidate, measured in zip(climbing, results, strict=True):
            candidate.record(plan.rung, measured)
        left = [c for c in climbing if c.failure is None]
        if partial:
            left = [c for c in left if not self._is_beaten(c, images, front)]
        if len(left) <= plan.survivors:
            return left
        points = np.array([[c.size, c.steps[-1].score] for c in left])
        return [left[i] for i in sorted(nsga2(points, plan.survivors).tolist())]

    def _is_beaten(self, candidate: _Candidate, images: int, front: Sequence[Trial]) -> bool:
        """Returns whether an incumbent that is no larger has a clearly lower loss."""
        rivals = [trial for trial in front if self._size.of(trial.cost) <= candidate.size]
        if not rivals or candidate.scores is None:
            return False
        rival = next(self._measurements.scores([rivals[-1].mask], images))
        if rival.scores is None:
            return False
        above = candidate.scores.loss_above(rival.scores)
        return above.mean > CLEARLY * above.error


def _repeated(earlier: Trial, proposal: Proposal, number: int, generation: int) -> Trial:
    """Returns the trial of a mask that was tried before: it gets the outcome that it had then."""
    return Trial(
        number=number,
        generation=generation,
        mask=proposal.mask,
        genome=proposal.genome,
        cost=earlier.cost,
        state=earlier.state,
        evaluation=earlier.evaluation,
        steps=earlier.steps,
        error=earlier.error,
        duplicate_of=earlier.number if earlier.duplicate_of is None else earlier.duplicate_of,
    )
