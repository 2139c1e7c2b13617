"""Weights of groups read off the trials: how much each group's cut really costs in loss."""

import numpy as np

from evosearch.knowledge import Array


def sampled_weights(costs: Array, losses: Array, rng: np.random.Generator) -> Array:
    """Draws relative weights of groups from what the trials say about them.

    Bayesian linear regression of `loss = c + sum_g theta_g cost_g`, with the prior
    `theta_g ~ N(t, t^2)` around the equal weight t that fits best, and noise in proportion to the
    loss. A draw from the posterior (Thompson sampling) explores what the trials leave open.

    Args:
        costs: what every group's cut costs by itself in every trial, `(trials, groups)`.
        losses: measured, positive, `(trials,)`.
        rng: source of the draw.

    Returns:
        `theta / t`, `(groups,)`; where the data says so, not positive.
    """
    trials, groups = costs.shape
    scale = 1 / losses
    equal = np.stack([np.ones(trials), costs.sum(axis=1)], axis=1)
    fitted, *_ = np.linalg.lstsq(equal * scale[:, None], losses * scale, rcond=None)
    weight = float(fitted[1])
    if weight <= 0:
        return np.asarray(np.exp(rng.normal(size=groups)))
    # In units of the equal weight: the unknowns are theta_g / t - 1, and a correction to c.
    features = np.concatenate([weight * costs, np.ones((trials, 1))], axis=1) * scale[:, None]
    rest = (losses - equal @ fitted) * scale
    prior = np.diag(np.append(np.ones(groups), 1e-6))
    noise = max(float(rest.var()), 1e-12)
    # Twice: first with the noise that the equal weights leave, then with what the fit leaves.
    for _ in range(2):
        precision = features.T @ features / noise + prior
        mean = np.linalg.solve(precision, features.T @ rest / noise)
        left = rest - features @ mean
        noise = max(float(left @ left) / max(trials - groups / 2, 3), 1e-12)
    spread = np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=groups + 1))
    return np.asarray(1 + (mean + spread)[:groups])
