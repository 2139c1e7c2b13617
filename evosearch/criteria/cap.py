"""The CaP criterion: a greedy order of channels that foresees the least-squares refit."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from evosearch.criteria.reconstruction import Consumers, OnConsumers, ranked
from evosearch.criteria.scored_network import Array, ScoredNetwork
from evosearch.refit.compensation import RIDGE
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import ChannelGroup


class CaP(OnConsumers):
    """Order in which channels are taken when each step leaves the least error after compensation.

    From no channel on, the one that lowers `L(S) = tr(W S W') - tr(B' inv(A) B)` most is taken
    next, with A the kept inputs' covariance and B theirs with the outputs: the gain is
    `|cov(Y, x_j | x_S) L_j^-T|_F^2` with `L_j L_j' = cov(x_j | x_S)`. The score is the error left
    just before a channel is taken. Channels of other groups count as kept; A has the ridge of
    `compensation`.
    """

    source = "Xie et al. 2021, arXiv 2108.13728"

    def score(
        self, network: ScoredNetwork, evidence: Consumers, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        return {g.name: self._score_group(network, g, evidence) for g in network.groups}

    def _score_group(
        self, network: ScoredNetwork, group: ChannelGroup, consumers: Consumers
    ) -> Array:
        readers: list[_Reader] = []
        for place in network.readers[group.name]:
            consumer = consumers[place.layers[0].module]
            weight = network.weight(place).movedim(place.dim, 1)
            kernel = weight[0, 0].numel()
            starts = torch.from_numpy(place.index)[:, :, None] * kernel
            inputs = (starts + torch.arange(kernel)).flatten(1)
            flat = weight.flatten(1).cpu()
            if consumer.covariance.ndim == 2:
                readers.append(_Correlated(flat, consumer.covariance, inputs))
            else:
                readers.append(_Uncorrelated(flat, consumer.covariance, inputs))
        left = np.ones(group.size, dtype=np.bool_)
        gains, order = [], []
        for _ in range(group.size):
            gain = np.where(left, sum(reader.gains() for reader in readers), -np.inf)
            taken = int(gain.argmax())
            left[taken] = False
            for reader in readers:
                reader.take(taken)
            order.append(taken)
            gains.append(float(gain[taken]))
        errors = np.cumsum(gains[::-1])
        return ranked(order[::-1], errors.tolist())


class _Reader(Protocol):
    """A layer that reads a group, some of whose channels are taken."""

    def gains(self) -> Array:
        """Returns what taking each channel lowers the layer's error by, `(channels,)`."""

    def take(self, channel: int) -> None:
        """Takes a channel."""


class _Uncorrelated(_Reader):
    """A reader whose inputs have known variances only: no channel makes up for another."""

    def __init__(self, weight: Tensor, variances: Tensor, inputs: Tensor) -> None:
        energies = weight.square().sum(0) * variances
        total = float(energies.sum())
        self._gains: Array = (energies[inputs].sum(1) / (total or 1.0)).numpy()

    def gains(self) -> Array:
        """See `_Reader.gains`."""
        return self._gains

    def take(self, channel: int) -> None:
        """Takes a channel."""


class _Correlated(_Reader):
    """Covariances of a reader's inputs and outputs, less what the channels taken explain.

    Args:
        weight: float64 `(outputs, inputs)`.
        covariance: float64 `(inputs, inputs)`.
        inputs: of each channel, `(channels, inputs of one)`.
    """

    def __init__(self, weight: Tensor, covariance: Tensor, inputs: Tensor) -> None:
        self._shape = inputs.shape
        joint = covariance @ weight.T  # of inputs and outputs
        self._energy = float((joint * weight.T).sum()) or 1.0
        ridge = RIDGE * float(covariance.diagonal().mean()) or 1.0
        covariance = covariance + ridge * torch.eye(len(covariance), dtype=covariance.dtype)
        own, others = inputs.flatten(), torch.ones(len(covariance), dtype=torch.bool)
        others[own] = False
        self._inner, self._outer = covariance[own][:, own], joint[own]
        if others.any():
            cross = covariance[others][:, own]
            factor = torch.linalg.cholesky(covariance[others][:, others])
            explained = torch.cholesky_solve(cross, factor).T
            self._inner = self._inner - explained @ cross
            self._outer = self._outer - explained @ joint[others]

    def gains(self) -> Array:
        """See `_Reader.gains`."""
        channels, block = self._shape
        blocks = self._inner.reshape(channels, block, channels, block)
        own = blocks.diagonal(dim1=0, dim2=2).movedim(2, 0)
        whitened = torch.linalg.solve_triangular(
            torch.linalg.cholesky(own), self._outer.reshape(channels, block, -1), upper=False
        )
        gains: Array = (whitened.square().sum((1, 2)) / self._energy).numpy()
        return gains

    def take(self, channel: int) -> None:
        """Takes a channel: all others keep what it does not explain."""
        block = self._shape[1]
        taken = slice(channel * block, (channel + 1) * block)
        factor = torch.linalg.cholesky(self._inner[taken, taken])
        explained = torch.cholesky_solve(self._inner[taken], factor).T  # (inputs, block)
        self._outer -= explained @ self._outer[taken]
        self._inner -= explained @ self._inner[taken].clone()
        self._outer[taken] = 0
        self._inner[taken] = 0
        self._inner[:, taken] = 0
        self._inner[taken, taken] = torch.eye(block, dtype=self._inner.dtype)
