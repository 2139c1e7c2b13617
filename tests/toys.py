"""A small search problem without torch: a space, knowledge of it, and an instant evaluator."""

from dataclasses import astuple, dataclass

import numpy as np

from evosearch.errors import EvaluationError
from evosearch.space.costform import CostTerm, Monomial
from evosearch.space.knowledge import Knowledge, SensitivityCurve
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.space.space import SearchSpace
from evosearch.study.identity import Identity, Part
from evosearch.study.scores import ImageScores
from evosearch.study.trial import Evaluation, Trial

SIZES = {"stem": 6, "stream": 8, "inner": 12}
IDENTITY = Identity(parts={part: f"toy {part}" for part in Part})


def toy_space() -> SearchSpace:
    """Returns three groups in a chain: the MACs of the middle layers are products of widths."""
    groups = tuple(ChannelGroup(name=name, size=size) for name, size in SIZES.items())
    terms = (
        CostTerm(
            name="first",
            macs=(Monomial(27, ("stem",)),),
            params=(Monomial(27, ("stem",)),),
            activations=(Monomial(4, ("stem",)),),
        ),
        CostTerm(
            name="second",
            macs=(Monomial(36, ("stem", "stream")),),
            params=(Monomial(9, ("stem", "stream")),),
            activations=(Monomial(4, ("stream",)),),
        ),
        CostTerm(
            name="third",
            macs=(Monomial(18, ("stream", "inner")), Monomial(120)),
            params=(Monomial(9, ("stream", "inner")), Monomial(30)),
            activations=(Monomial(2, ("inner",)), Monomial(10)),
        ),
    )
    return SearchSpace(groups=groups, terms=terms)


def toy_knowledge() -> Knowledge:
    """Returns random positive definite Gram matrices, scores and convex sensitivities."""
    rng = np.random.default_rng(7)
    gram, scores, sensitivity = {}, {}, {}
    for name, size in SIZES.items():
        factor = rng.normal(size=(size, size + 3))
        gram[name, name] = factor @ factor.T / (factor**2).sum()
        scores[name] = rng.random(size)
        widths = np.array([size // 4, size // 2, size], dtype=np.int64)
        sensitivity[name] = SensitivityCurve(
            widths=widths, loss_increase=rng.random() * (1 - widths / size) ** 2
        )
    means = {name: own / own.mean() for name, own in scores.items()}
    return Knowledge(
        gram=gram, scores={"l1": scores}, comparable={"l1": means}, sensitivity=sensitivity
    )


class ToyEvaluator:
    """Gives every mask a loss by arithmetic, fails on some, and counts how often it is asked."""

    images = 100

    def __init__(self, *, failing: bool = True) -> None:
        self.asked: list[Mask] = []
        self._failing = failing
        self._values = {n: np.arange(1, size + 1) % 5 + 1.0 for n, size in SIZES.items()}
        hardness = np.random.default_rng(3).normal(size=self.images)
        self._hardness = hardness - hardness.mean()

    def prepare(self, *, errors: bool) -> None:
        """See `Evaluator.prepare`; there is nothing to share."""

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        self.asked.append(mask)
        if self._failing and int(mask.key, 16) % 7 == 0:
            raise EvaluationError("the loss is not finite")
        kept = self._kept(mask)
        own = np.random.default_rng(int(mask.key[:8], 16)).normal(size=self.images)
        losses = 2.0 - kept + 0.1 * self._hardness + 0.01 * (own - own.mean())
        metrics = np.arange(self.images) < 100 * kept
        return ImageScores(losses=losses, metrics=metrics.astype(float)).between(start, stop)

    def compensated_error(self, mask: Mask) -> float:
        return (1 - self._kept(mask)) ** 2

    def evaluation(self, mask: Mask) -> Evaluation:
        """Returns the evaluation on all images."""
        return Evaluation(score=self.image_scores(mask, 0, self.images).score, seconds=0.0)

    def _kept(self, mask: Mask) -> float:
        kept = sum(float(self._values[name][bits].sum()) for name, bits in mask.items())
        return kept / sum(float(values.sum()) for values in self._values.values())


def comparable(trials: tuple[Trial, ...]) -> list[tuple[object, ...]]:
    """Returns what two equal studies agree on: all but the seconds that evaluations took."""
    return [
        (
            trial.number,
            trial.generation,
            trial.state,
            dict(trial.genome),
            trial.mask.key,
            trial.cost,
            trial.error,
            trial.duplicate_of,
            [(step.rung, step.score, step.images) for step in trial.steps],
            None if (e := trial.evaluation) is None else (*astuple(e.score), e.rung),
        )
        for trial in trials
    ]


@dataclass(frozen=True)
class Toys:
    """Gives a worker process its toy evaluator."""

    def __call__(self, worker: int = 0) -> ToyEvaluator:
        return ToyEvaluator()
