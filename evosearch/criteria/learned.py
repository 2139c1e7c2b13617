"""Criteria that learn gates: factors on channels, trained with the network or for themselves."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from evosearch.calling import call
from evosearch.criteria.base import Batches, Criterion, Needs, Normaliser
from evosearch.criteria.scored_network import ScoredNetwork, array
from evosearch.errors import InputError
from evosearch.models.modes import evaluating
from evosearch.space.knowledge import ImportanceScores
from evosearch.surgery.gate_kinds import ConsensusGates, ExcitationGates
from evosearch.surgery.gating import Gates, gates_of

PASSES = 10
"""Passes over the batches in which gates learn that did not train with the network."""
LR = 0.05
"""Adam's learning rate in them."""
NEEDS_BUDGET = (
    "criterion 'consensus' reads gates that train with the network under a budget: take it in"
    " [prune], as evosearch train SPACE --flops 50% --recipe consensus does"
)
"""What is said where there is no such training."""


class OnLearnedGates(Criterion[Mapping[str, Tensor]]):
    """Kind of criterion that reads gates which learned what channels are worth.

    Those that hang in the network, where it trained with some (`training.gated`).
    """

    needs = Needs.GRADIENTS
    gates: ClassVar[type[Gates]]
    """The gates, and where they are."""

    @staticmethod
    def gather(
        criteria: Sequence[Any], network: ScoredNetwork, batches: Batches, rng: np.random.Generator
    ) -> Sequence[Mapping[str, Tensor]]:
        """Returns for each criterion its gates: group name -> `(images, channels)`."""
        seed = int(rng.integers(2**62))
        with evaluating(network.model):
            return [criterion.factors(network, batches, seed) for criterion in criteria]

    def factors(self, network: ScoredNetwork, batches: Batches, seed: int) -> dict[str, Tensor]:
        """Returns the gates on every image by group, `(images, channels)`."""
        gates = gates_of(network.model)
        if gates is not None:
            return _read(gates, network, batches)
        rng = torch.Generator().manual_seed(seed)
        gates = self.gates(network.model, network.groups, network.layers, rng)
        try:
            self.learn(gates, network, batches)
            return _read(gates, network, batches)
        finally:
            gates.discard()

    @abstractmethod
    def learn(self, gates: Gates, network: ScoredNetwork, batches: Batches) -> None:
        """Lets gates learn that did not train with the network, whose weights are held.

        Raises:
            InputError: they cannot.
        """

    def score(
        self,
        network: ScoredNetwork,
        evidence: Mapping[str, Tensor],
        rng: np.random.Generator,
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        return {group: array(self.combine(factors)) for group, factors in evidence.items()}

    @abstractmethod
    def combine(self, factors: Tensor) -> Tensor:
        """Returns scores `(channels,)` of gates before rounding, `(images, channels)`."""


class MSEB(OnLearnedGates):
    """Mean gate of squeeze-and-excitation blocks behind the layers that write the channel.

    `s_j` is the mean over images; see `surgery.gate_kinds.ExcitationGates`. Where the network did
    not train with them, which is ours, blocks learn on the batches with its weights and BatchNorm
    statistics held, and are thrown away.
    """

    source = "Chang et al. 2020 (UCP), arXiv 2010.01251; gates learned on held weights ours"
    coupled = "mean over writers"
    normaliser = Normaliser.MEAN
    gates = ExcitationGates

    def learn(self, gates: Gates, network: ScoredNetwork, batches: Batches) -> None:
        """See `OnLearnedGates.learn`."""
        parameters = list(gates.parameters())
        optimizer = torch.optim.Adam(parameters, lr=LR)
        for images, labels in chain.from_iterable([batches] * PASSES):
            with torch.enable_grad():
                loss = network.losses(call(network.model, images), labels).mean()
                found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient
            optimizer.step()

    def combine(self, factors: Tensor) -> Tensor:
        """See `OnLearnedGates.combine`."""
        return factors.mean(0)


class Consensus(OnLearnedGates):
    """Share of the images whose binary gate on the channel is open.

    Between equal shares the mean of the gates before rounding decides; see
    `surgery.gate_kinds.ConsensusGates`.
    """

    source = "Zhi et al. 2023, arXiv 2302.10798, by its abstract; losses and form ours"
    coupled = "one gate for all readers"
    needs = Needs.TRAINING
    normaliser = Normaliser.NONE
    gates = ConsensusGates

    def learn(self, gates: Gates, network: ScoredNetwork, batches: Batches) -> None:
        """Refuses: what is to stay open follows from a budget, which a criterion has none of."""
        raise InputError(NEEDS_BUDGET)

    def combine(self, factors: Tensor) -> Tensor:
        """See `OnLearnedGates.combine`."""
        # Shares are whole images apart, and the mean is under one of them.
        return (factors > 0.5).to(factors).mean(0) + factors.mean(0) / len(factors)


def learned_gates(criterion: type[Criterion[Any]]) -> type[Gates] | None:
    """Returns the gates that a training by a criterion has; None where it reads none."""
    return criterion.gates if issubclass(criterion, OnLearnedGates) else None


@torch.inference_mode()
def _read(gates: Gates, network: ScoredNetwork, batches: Batches) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {group.name: [] for group in network.groups}
    for images, _ in batches:
        call(network.model, images)
        for group, factors in gates.factors.items():
            parts[group].append(factors.double().cpu())
    return {group: torch.cat(own) for group, own in parts.items()}
