"""The model of the loss of masks that were not evaluated, fitted to the trials.

The loss of a mask is predicted as `c + sum_g theta_g phi_g`. The feature of a group is
`phi = f(w)^a e^b`, at the mask's own two-step error `e` and width `w`, with f the factor between
two-step errors and measured loss increases (`sensitivity.calibrated`): a says how far those are
trusted, b how much faster the loss rises than the errors. With the first values the features of
the best masks are what `rates` allocates by. The weights come from a Bayesian regression on all
full evaluations; a and b are those whose regression predicts trials left out best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np

from evosearch.space.budget import Budget
from evosearch.space.knowledge import Array, Knowledge
from evosearch.space.mask import Bits, Mask
from evosearch.space.space import SearchSpace, Widths
from evosearch.strategies.allocation import Allocator
from evosearch.strategies.population import Layout
from evosearch.strategies.regression import Posterior, posterior
from evosearch.strategies.sensitivity import calibrated
from evosearch.strategies.two_step import ErrorCurve, TwoStep
from evosearch.study.trial import Trial

TRUSTS = (0.0, 0.5, 1.0)
"""Values of a to choose from."""
POWERS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.5)
"""Values of b to choose from."""
FIRST = (0.5, 2.5)
"""a and b until trials say otherwise."""
LEAST_WEIGHT = float(np.exp(-2))
"""No group's relative weight is less: fewer channels must never look better."""


@final
@dataclass(frozen=True)
class Weights:
    """One reading of the trials.

    Attributes:
        groups: relative weight of each group, positive, `(groups,)`.
        scale: loss per unit of the features.
        intercept: loss of a mask that costs nothing.
        powers: a and b of the features.
    """

    groups: Array
    scale: float = 1.0
    intercept: float = 0.0
    powers: tuple[float, float] = FIRST


@final
@dataclass(frozen=True, kw_only=True)
class Fit:
    """The weights that trials suggest, and how sure they are.

    Attributes:
        powers: a and b of the features that explain the losses best.
        posterior: of the weights with those.
    """

    powers: tuple[float, float]
    posterior: Posterior

    def mean(self) -> Weights:
        """Returns the most likely weights."""
        return self._weights(*self.posterior.expected())

    def sample(self, rng: np.random.Generator) -> Weights:
        """Draws weights (Thompson sampling): the less is known, the further from the mean."""
        return self._weights(*self.posterior.sample(rng))

    def _weights(self, theta: Array, intercept: float) -> Weights:
        return Weights(
            intercept=intercept,
            scale=self.posterior.weight,
            groups=np.maximum(theta, LEAST_WEIGHT),
            powers=self.powers,
        )


@final
class LossModel:
    """Predicts the loss of any mask from its two-step errors and the trials.

    Attributes:
        two_step: errors of masks, and good channels for given widths.
        layout: where the groups lie in rows of bits.
    """

    def __init__(self, space: SearchSpace, knowledge: Knowledge) -> None:
        """Reads the error curves of all groups, which takes about as long as in `rates`.

        Raises:
            InputError: the knowledge lacks a group's sensitivity or Gram matrix.
        """
        self._space = space
        self.two_step = TwoStep(space, knowledge.gram)
        self.layout = Layout(space, self.two_step)
        self._bases = np.cumsum(space.full_widths + 1) - space.full_widths - 1
        self._curves = {name: self.two_step.curve(name) for name in space.sizes}
        factors = []
        for name, curve in self._curves.items():
            measured = calibrated(curve, name, knowledge.sensitivity)
            factors.append(_factors(curve, measured, space.sizes[name]))
        self._factors = np.concatenate(factors)
        self._allocators: dict[tuple[float, float], Allocator] = {}

    def fit(self, trials: Sequence[Trial]) -> Fit:
        """Fits the weights to the trials with a full evaluation; others are passed over."""
        complete = [trial for trial in trials if trial.is_complete]
        bits = self.layout.rows([trial.mask for trial in complete])
        losses = np.array([t.evaluation.score.loss for t in complete if t.evaluation])
        return self.fit_errors(self.layout.widths(bits), self.layout.errors(bits), losses)

    def fit_errors(self, widths: Widths, errors: Array, losses: Array) -> Fit:
        """Fits the weights to masks `(masks, groups)` and their losses `(masks,)`."""
        level = float(losses.mean()) if len(losses) else 0.0
        best = Fit(powers=FIRST, posterior=Posterior.prior(len(self._bases), level))
        if len(losses) < 2 or np.ptp(losses) == 0:
            return best
        for powers in product(TRUSTS, POWERS):
            features = self._features(widths, errors, powers)
            found = posterior(features, np.maximum(losses, 1e-12))
            if found is not None and found.surprise < best.posterior.surprise:
                best = Fit(powers=powers, posterior=found)
        return best

    def losses(self, widths: Widths, errors: Array, weights: Weights) -> Array:
        """Returns predicted losses of masks, `(masks,)`, from their widths and two-step errors.

        Args:
            widths: `(masks, groups)`.
            errors: of each group by itself, likewise.
            weights: from a fit.
        """
        features = self._features(widths, errors, weights.powers)
        return np.asarray(weights.intercept + weights.scale * (features @ weights.groups))

    def predict(self, bits: Bits, weights: Weights) -> Array:
        """Returns predicted losses of masks, `(masks,)`, from scratch.

        Args:
            bits: rows of `Layout.rows`, `(masks, all channels)`.
            weights: from a fit.
        """
        return self.losses(self.layout.widths(bits), self.layout.errors(bits), weights)

    def plan(self, weights: Weights, budget: Budget) -> Mask:
        """Returns the mask of least predicted loss that an allocation finds within a budget.

        Raises:
            InfeasibleBudget: no legal mask fits.
        """
        if weights.powers not in self._allocators:
            self._allocators[weights.powers] = Allocator(
                self._space, self._powered(weights.powers)
            )
        return self.two_step.mask(
            self._allocators[weights.powers].allocate(weights.groups, budget)
        )

    def _powered(self, powers: tuple[float, float]) -> Mapping[str, ErrorCurve]:
        """Returns the features of the best masks at each group's widths, never rising."""
        curves = {}
        for base, (name, curve) in zip(self._bases, self._curves.items(), strict=True):
            factors = self._factors[base + curve.widths]
            features = factors ** powers[0] * curve.errors ** powers[1]
            falling = np.maximum.accumulate(features[::-1])[::-1]
            curves[name] = ErrorCurve(widths=curve.widths, errors=falling)
        return curves

    def _features(self, widths: Widths, errors: Array, powers: tuple[float, float]) -> Array:
        factors = self._factors[self._bases + widths]
        return np.asarray(factors ** powers[0] * np.maximum(errors, 0) ** powers[1])


def _factors(curve: ErrorCurve, measured: ErrorCurve, size: int) -> Array:
    """Returns f at every width from 0 to the group's size, `(size + 1,)`.

    It is read off the calibrated curve, so that the best masks get exactly its loss increases.
    """
    there = curve.errors > 0
    if not there.any():
        return np.zeros(size + 1)
    logs = np.log(np.maximum(measured.errors[there] / curve.errors[there], 1e-300))
    return np.asarray(np.exp(np.interp(np.arange(size + 1), curve.widths[there], logs)))
