"""A Gaussian policy of one hidden layer: keep ratios from states, and the steps of REINFORCE."""

from collections.abc import Mapping
from typing import final

import numpy as np

from evosearch.space.knowledge import Array

LEAST, MOST = 0.05, 1.0
"""Ends of the keep ratios."""
DECAYS = (0.9, 0.999)
"""Adam's, of the mean of gradients and of their squares."""


@final
class GaussianPolicy:
    """Draws keep ratios around means that a small network gives, and moves it towards the good.

    The mean is `LEAST + (MOST - LEAST) * sigmoid(v . tanh(W s + b) + c)` of a state s.
    """

    def __init__(self, features: int, hidden: int, rng: np.random.Generator) -> None:
        """Draws the first weights; the means are near the middle."""
        self.weights: dict[str, Array] = {
            "W": rng.normal(size=(features, hidden)) / np.sqrt(features),
            "b": np.zeros(hidden),
            "v": rng.normal(size=hidden) / hidden,
            "c": np.zeros(1),
        }
        self._means = {name: np.zeros_like(own) for name, own in self.weights.items()}
        self._squares = {name: np.zeros_like(own) for name, own in self.weights.items()}
        self._steps = 0

    def mean(self, states: Array) -> Array:
        """Returns the mean keep ratios of states `(n, features)`, `(n,)`."""
        _, squashed = self._forward(states)
        return np.asarray(LEAST + (MOST - LEAST) * squashed)

    def score(self, states: Array, actions: Array, deviation: float) -> dict[str, Array]:
        """Returns the gradient of the log probability of actions, summed over them.

        Args:
            states: `(n, features)`.
            actions: as drawn, before they are clipped, `(n,)`.
            deviation: standard deviation that they were drawn with.
        """
        hidden, squashed = self._forward(states)
        pull = (actions - self.mean(states)) / deviation**2
        inner = pull * (MOST - LEAST) * squashed * (1 - squashed)
        back = inner[:, None] * self.weights["v"] * (1 - hidden**2)
        return {
            "W": states.T @ back,
            "b": back.sum(axis=0),
            "v": hidden.T @ inner,
            "c": inner.sum(keepdims=True),
        }

    def step(self, gradients: Mapping[str, Array], rate: float) -> None:
        """Moves the weights up the gradients, by Adam."""
        self._steps += 1
        first, second = DECAYS
        for name, gradient in gradients.items():
            mean, square = self._means[name], self._squares[name]
            mean += (1 - first) * (gradient - mean)
            square += (1 - second) * (gradient**2 - square)
            unbiased = mean / (1 - first**self._steps)
            scale = np.sqrt(square / (1 - second**self._steps)) + 1e-8
            self.weights[name] = self.weights[name] + rate * unbiased / scale

    def _forward(self, states: Array) -> tuple[Array, Array]:
        """Returns the hidden layer `(n, hidden)` and the mean before it is scaled, `(n,)`."""
        hidden = np.tanh(states @ self.weights["W"] + self.weights["b"])
        squashed = 1 / (1 + np.exp(-(hidden @ self.weights["v"] + self.weights["c"])))
        return hidden, squashed
