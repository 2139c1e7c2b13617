"""What the trials say about masks that were not evaluated: a model of the loss.

The loss of a mask is predicted as `c + sum_g theta_g phi_g`. The feature of a group is the same
prediction that `rates` allocates by, at the mask's own two-step error `e` and width `w`:
`phi = sqrt(f(w) e * e^4)`, with f the factor between two-step errors and measured loss increases
(`sensitivity.calibrated`). The weights come from a Bayesian regression on all full evaluations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from evosearch.knowledge import Array, Knowledge
from evosearch.mask import Bits
from evosearch.space import SearchSpace, Widths
from evosearch.strategies.regression import Posterior, posterior
from evosearch.strategies.sensitivity import calibrated
from evosearch.strategies.two_step import ErrorCurve, TwoStep
from evosearch.trial import Trial

LEAST_WEIGHT = float(np.exp(-2))
"""No group's weight is less: fewer channels must never look better."""


def predicted(curve: ErrorCurve, group: str, knowledge: Knowledge) -> ErrorCurve:
    """Returns what a group's cut costs by itself: features of the best masks at its widths.

    Raises:
        InputError: the group was not probed.
    """
    measured = calibrated(curve, group, knowledge.sensitivity)
    return ErrorCurve(widths=curve.widths, errors=np.sqrt(measured.errors * curve.errors**4))


@final
@dataclass(frozen=True, kw_only=True)
class Weights:
    """One reading of the trials.

    Attributes:
        intercept: loss of a mask that costs nothing.
        scale: loss per unit of the features, all groups alike.
        groups: relative weight of each group, positive, `(groups,)`; what an allocation takes.
    """

    intercept: float
    scale: float
    groups: Array

    def losses(self, features: Array) -> Array:
        """Returns predicted losses `(population,)` for features `(population, groups)`."""
        return np.asarray(self.intercept + self.scale * (features @ self.groups))


@final
@dataclass(frozen=True, kw_only=True)
class Fit:
    """What trials say about the weights.

    Attributes:
        count: number of groups.
        posterior: None where the trials say nothing yet.
        level: mean loss of the trials.
    """

    count: int
    posterior: Posterior | None
    level: float

    def mean(self) -> Weights:
        """Returns the most likely weights."""
        if self.posterior is None:
            return Weights(intercept=self.level, scale=1.0, groups=np.ones(self.count))
        return self._weights(*self.posterior.expected(), self.posterior.weight)

    def sample(self, rng: np.random.Generator) -> Weights:
        """Draws weights (Thompson sampling): the less is known, the further from the mean."""
        if self.posterior is None:
            groups = np.exp(rng.normal(size=self.count))
            return Weights(intercept=self.level, scale=1.0, groups=groups)
        return self._weights(*self.posterior.sample(rng), self.posterior.weight)

    @staticmethod
    def _weights(theta: Array, intercept: float, scale: float) -> Weights:
        return Weights(
            intercept=intercept, scale=scale, groups=np.maximum(theta, LEAST_WEIGHT)
        )


@final
class LossModel:
    """Predicts the loss of any mask from its two-step errors and the trials.

    The plan that the trials predict to be best at a budget is
    `Allocator(space, model.curves).allocate(model.fit(trials).mean().groups, budget)`, with the
    channels of `model.two_step.mask`.

    Attributes:
        two_step: errors of masks, and good channels for given widths.
        curves: features of the best known masks at each group's widths, by group.
    """

    def __init__(self, space: SearchSpace, knowledge: Knowledge) -> None:
        """Reads the error curves of all groups; the slow part, about as slow as a round.

        Raises:
            InputError: the knowledge lacks a group's sensitivity or Gram matrix.
        """
        self._space = space
        self.two_step = TwoStep(space, knowledge.gram)
        self.curves: Mapping[str, ErrorCurve] = {
            name: predicted(self.two_step.curve(name), name, knowledge) for name in space.sizes
        }
        self._bases = np.concatenate([[0], np.cumsum(space.full_widths + 1)])[:-1]
        self._factors = np.concatenate([self._factors_of(name) for name in space.sizes])

    def fit(self, trials: Sequence[Trial]) -> Fit:
        """Fits the weights to the trials with a full evaluation; others are passed over."""
        complete = [trial for trial in trials if trial.is_complete and trial.evaluation]
        if not complete:
            return self.fit_features(np.zeros((0, len(self._bases))), np.zeros(0))
        bits = np.stack([np.concatenate([t.mask[g] for g in self._space.sizes]) for t in complete])
        losses = np.array([t.evaluation.loss for t in complete if t.evaluation])
        return self.fit_features(self.features_of(bits), losses)

    def fit_features(self, features: Array, losses: Array) -> Fit:
        """Fits the weights to features `(trials, groups)` and losses `(trials,)`."""
        losses = np.maximum(losses, 1e-12)
        known = len(losses) > 1 and float(np.ptp(losses)) > 0
        return Fit(
            count=len(self._bases),
            posterior=posterior(features, losses) if known else None,
            level=float(losses.mean()) if len(losses) else 0.0,
        )

    def features(self, widths: Widths, errors: Array) -> Array:
        """Returns the features of masks from their widths and own two-step errors.

        Both and the result are `(population, groups)`.
        """
        factors = self._factors[self._bases + widths]
        return np.asarray(np.sqrt(factors * np.maximum(errors, 0) ** 5))

    def features_of(self, bits: Bits) -> Array:
        """Returns the features `(population, groups)` of keep masks, from scratch.

        Args:
            bits: channels of all groups side by side, `(population, all channels)`.
        """
        starts = np.cumsum(self._space.full_widths)[:-1]
        parts = np.split(bits, starts, axis=1)
        widths = np.stack([part.sum(axis=1) for part in parts], axis=1)
        errors = [
            self.two_step.group_errors(name, part)
            for name, part in zip(self._space.sizes, parts, strict=True)
        ]
        return self.features(widths, np.stack(errors, axis=1))

    def predict(self, bits: Bits, weights: Weights) -> Array:
        """Returns predicted losses `(population,)`; see `features_of` for `bits`."""
        return weights.losses(self.features_of(bits))

    def _factors_of(self, group: str) -> Array:
        """Returns f at every width from 0 to the group's size, `(size + 1,)`.

        It is read off the calibrated curve, so that the best masks get exactly its features.
        """
        curve, feature = self.two_step.curve(group), self.curves[group]
        there = curve.errors > 0
        if not there.any():
            return np.zeros(self._space.sizes[group] + 1)
        factors = np.maximum(feature.errors[there] ** 2 / curve.errors[there] ** 5, 1e-300)
        widths = np.arange(self._space.sizes[group] + 1)
        return np.asarray(np.exp(np.interp(widths, curve.widths[there], np.log(factors))))
