"""A Bayesian regression: how much each group's cut costs in loss, read off the trials."""

from dataclasses import dataclass
from typing import final

import numpy as np

from evosearch.space.knowledge import Array


@final
@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The weights that trials suggest in `loss = intercept + weight * sum_g theta_g cost_g`.

    Attributes:
        intercept, weight: of the fit with all `theta_g = 1`.
        mean: of `theta_g - 1` for every group, then of a correction to the intercept,
            `(groups + 1,)`.
        spread: a square root of the covariance, `(groups + 1, groups + 1)`.
        surprise: mean squared relative error for a trial that is left out; smaller costs explain
            the losses better.
    """

    intercept: float
    weight: float
    mean: Array
    spread: Array
    surprise: float

    @classmethod
    def prior(cls, groups: int, level: float) -> "Posterior":
        """Returns what holds before any trial: weights around 1, losses around a level."""
        return cls(
            intercept=level,
            weight=1.0,
            mean=np.zeros(groups + 1),
            spread=np.diag(np.append(np.ones(groups), 0.0)),
            surprise=float("inf"),
        )

    def sample(self, rng: np.random.Generator) -> tuple[Array, float]:
        """Draws `theta`, `(groups,)`, and the intercept (Thompson sampling)."""
        return self._shifted(self.mean + self.spread @ rng.normal(size=len(self.mean)))

    def expected(self) -> tuple[Array, float]:
        """Returns the mean `theta`, `(groups,)`, and intercept."""
        return self._shifted(self.mean)

    def _shifted(self, shift: Array) -> tuple[Array, float]:
        return 1 + shift[:-1], self.intercept + float(shift[-1])


def posterior(costs: Array, losses: Array) -> Posterior | None:
    """Fits the Bayesian linear regression of losses on costs.

    The prior is `theta_g ~ N(1, 1)` around the equal weight that fits best; the noise is in
    proportion to the loss.

    Args:
        costs: what every group's cut costs by itself in every trial, `(trials, groups)`.
        losses: measured, positive, `(trials,)`.

    Returns:
        None where the losses do not rise with the costs at all.
    """
    trials, groups = costs.shape
    scale = 1 / losses
    equal = np.stack([np.ones(trials), costs.sum(axis=1)], axis=1)
    fitted, *_ = np.linalg.lstsq(equal * scale[:, None], losses * scale, rcond=None)
    weight = float(fitted[1])
    if weight <= 0:
        return None
    # In units of the equal weight: the unknowns are theta_g - 1, and a correction to c.
    features = np.concatenate([weight * costs, np.ones((trials, 1))], axis=1) * scale[:, None]
    rest = (losses - equal @ fitted) * scale
    prior = np.diag(np.append(np.ones(groups), 1e-6))
    noise = max(float(rest.var()), 1e-12)
    # Twice: first with the noise that the equal weights leave, then with what the fit leaves.
    for _ in range(2):
        precision = features.T @ features / noise + prior
        mean = np.linalg.solve(precision, features.T @ rest / noise)
        left, used = rest - features @ mean, noise
        noise = max(float(left @ left) / max(trials - groups / 2, 3), 1e-12)
    leverage = np.einsum("ij,ij->i", features, np.linalg.solve(precision, features.T / used).T)
    return Posterior(
        intercept=float(fitted[0]),
        weight=weight,
        mean=mean,
        spread=np.linalg.inv(np.linalg.cholesky(precision)).T,
        surprise=float(np.mean((left / np.maximum(1 - leverage, 1e-9)) ** 2)),
    )


def sampled_weights(costs: Array, losses: Array, rng: np.random.Generator) -> Array:
    """Draws relative weights of groups from what the trials say about them; see `posterior`.

    Args:
        costs: what every group's cut costs by itself in every trial, `(trials, groups)`.
        losses: measured, positive, `(trials,)`.
        rng: source of the draw.

    Returns:
        `theta`, `(groups,)`; where the data says so, not positive.
    """
    fitted = posterior(costs, losses)
    if fitted is None:
        return np.asarray(np.exp(rng.normal(size=costs.shape[1])))
    return fitted.sample(rng)[0]
