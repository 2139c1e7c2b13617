"""Criteria on the outputs of the layers that read a channel, from the moments of their inputs."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lasso_path

from evosearch.criteria.base import Batches, Criterion, Needs, Normaliser
from evosearch.criteria.scored_network import Array, ScoredNetwork
from evosearch.models.modes import evaluating
from evosearch.refit.gram import Consumer, collect_statistics, gram_blocks
from evosearch.space.knowledge import ImportanceScores

Consumers = Mapping[str, Consumer]


class OnConsumers(Criterion[Consumers]):
    """Kind of criterion that reads the second moments of what layers read, group by group.

    Each reader counts as a share of its own output energy, so errors compare between groups.
    """

    needs = Needs.IMAGES
    coupled = "errors summed over readers, each divided by its output energy"
    normaliser = Normaliser.NONE

    @staticmethod
    def gather(
        criteria: Sequence[Any], network: ScoredNetwork, batches: Batches, rng: np.random.Generator
    ) -> Sequence[Consumers]:
        """Measures the covariance of every reader's input patches, where it is not known yet."""
        if network.consumers is not None:
            return [network.consumers] * len(criteria)
        images = [images for images, _ in batches]
        seed = int(rng.integers(2**31))
        model, groups, layers = network.model, network.groups, network.layers
        with evaluating(model):
            found = collect_statistics(model, groups, layers, images, seed)
        return [found] * len(criteria)


class OnGram(OnConsumers):
    """Kind of criterion that reads a group's Gram matrix, `dE(p) = p' G p` (see `gram_blocks`)."""

    def score(
        self, network: ScoredNetwork, evidence: Consumers, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        blocks = gram_blocks(network.model, network.groups, evidence)
        return {g.name: self.score_gram(blocks[g.name, g.name]) for g in network.groups}

    @abstractmethod
    def score_gram(self, gram: Array) -> Array:
        """Returns a group's scores `(channels,)` from its matrix `(channels, channels)`."""


class TwoStep(OnGram):
    """Order in which channels go when each step adds the least two-step error.

    From the whole group on, the channel of least `2 (G p)_i + G_ii` goes next. Its score is
    `dE(p)` once it is gone.
    """

    source = "this project, on Hu et al. 2018, arXiv 1805.11394"

    def score_gram(self, gram: Array) -> Array:
        """See `OnGram.score_gram`."""
        slope, error = np.zeros(len(gram)), 0.0  # of G p, and dE(p)
        kept = np.ones(len(gram), dtype=np.bool_)
        order, errors = [], []
        for _ in range(len(gram)):
            rise = np.where(kept, 2 * slope + gram.diagonal(), np.inf)
            gone = int(rise.argmin())
            kept[gone] = False
            error += float(rise[gone])
            slope += gram[:, gone]
            order.append(gone)
            errors.append(error)
        return ranked(order, errors)


class Lasso(OnGram):
    """Penalties at which a channel still takes part in rebuilding what the readers put out.

    `argmin_b |Y - sum_i b_i X_i W_i'|^2 + lambda |b|_1` (eq. 2, step one), for 100 values of
    lambda down to 1e-4 of the one that drops all; the score is the share of them at which `b_i`
    is not zero, ties broken by `|b_i|` at the last. The paper raises lambda until as many are
    left as are wanted, so its choice at any width is the highest scores. Its step two, the
    least-squares refit of the weights that stay, is `Compensation`.

    The problem depends on the data through `G_ij = tr(W_i S_ij W_j')` alone: with `G = R'R` it is
    solved, without sampling, with R for the inputs and `R 1` for the target.
    """

    source = "He et al. 2017, arXiv 1707.06168"

    def score_gram(self, gram: Array) -> Array:
        """See `OnGram.score_gram`."""
        values, vectors = np.linalg.eigh(gram)
        root = np.sqrt(values.clip(min=0))[:, None] * vectors.T
        return lasso_scores(root, root.sum(axis=1))


def lasso_scores(inputs: Array, target: Array) -> Array:
    """Returns the share of penalties at which each input takes part in a LASSO; see `Lasso`.

    Args:
        inputs: `(rows, channels)`.
        target: `(rows,)`.

    Returns:
        `(channels,)`.
    """
    largest = np.abs(inputs.T @ target).max() / len(inputs)
    if largest <= 0:
        return np.zeros(inputs.shape[1])
    with warnings.catch_warnings():
        # At the smallest penalties descent is slow, and the order is long settled.
        warnings.simplefilter("ignore", ConvergenceWarning)
        penalties = largest * np.geomspace(1, 1e-4, 100)
        _, path, _ = lasso_path(inputs, target, alphas=penalties)
    last = np.abs(path[:, -1])
    scores: Array = ((path != 0).sum(axis=1) + last / (1 + last)) / (path.shape[1] + 1)
    return scores


def ranked(order: Sequence[int], errors: Sequence[float]) -> Array:
    """Returns scores from the order in which channels go, and the error once each is gone.

    Args:
        order: every channel, the first to go first.
        errors: in that order. Where the error falls, the highest so far stands, and a trace is
            added for each step, so that scores rank exactly as `order`.

    Returns:
        `(channels,)`.
    """
    highest = np.maximum.accumulate(np.maximum(errors, 0))
    steps = np.arange(1, len(order) + 1) / len(order)
    scores = np.empty(len(order))
    scores[np.asarray(order)] = highest + 1e-6 * max(float(highest[-1]), 1e-12) * steps
    return scores
