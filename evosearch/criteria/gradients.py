"""Criteria that read gradients: one backward pass serves them all.

A gate of one multiplies each channel, image by image, wherever a reader reads it. The gradient of
an image's loss to that gate is the first-order price of dropping the channel there. With ReLU
behind a BatchNorm it equals `gamma dL/dgamma + beta dL/dbeta`, but it holds for any activation.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from evosearch.calling import Inputs, arguments
from evosearch.criteria.base import Batches, Criterion, Needs, Normaliser
from evosearch.criteria.layer_inputs import input_hooks, stacked
from evosearch.criteria.scored_network import Place, ScoredNetwork, array
from evosearch.data.labels import Labels
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.reach import by_image, channel_dim


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """Gradients of the loss to gates and weights, with BatchNorm in eval mode.

    Attributes:
        gates: group name -> gradient of each image's loss to the channel's gate at each reader,
            `(readers, images, channels)`.
        weights: name of a weight that writes scored channels -> gradient of the mean loss.
    """

    gates: dict[str, Tensor]
    weights: dict[str, Tensor]


class OnGradients(Criterion[Gradients]):
    """Kind of criterion that reads gradients of gates or weights."""

    needs = Needs.GRADIENTS
    normaliser = Normaliser.NONE

    @staticmethod
    def gather(
        criteria: Sequence[Any],
        network: ScoredNetwork,
        batches: Batches,
        rng: np.random.Generator,
    ) -> Sequence[Gradients]:
        """Makes one forward and backward pass."""
        return [gradients(network, batches)] * len(criteria)


class OnGates(OnGradients):
    """Kind of criterion that reads gradients of gates, one group at a time."""

    def score(
        self, network: ScoredNetwork, evidence: Gradients, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        return {
            group.name: array(self.score_group(network, group, evidence.gates[group.name]))
            for group in network.groups
        }

    @abstractmethod
    def score_group(self, network: ScoredNetwork, group: ChannelGroup, gates: Tensor) -> Tensor:
        """Returns the scores of one group, `(channels,)`.

        Args:
            network: what is scored.
            group: one of its groups.
            gates: as in `Gradients.gates`, `(readers, images, channels)`.
        """


def gradients(network: ScoredNetwork, batches: Batches) -> Gradients:
    """Returns the gradients of all gates and of all weights that write scored channels."""
    gates: dict[str, list[Tensor]] = {group.name: [] for group in network.groups}
    totals: dict[str, Tensor] = {}
    for images, labels in batches:
        own = _batch_gradients(network, images, labels)
        for group, found in own.gates.items():
            gates[group].append(found)
        for name, gradient in own.weights.items():
            totals[name] = totals.get(name, 0) + gradient.double()
    count = sum(len(images) for images, _ in batches)
    return Gradients(
        gates={group: torch.cat(parts, dim=1) for group, parts in gates.items()},
        weights={name: total / count for name, total in totals.items()},
    )


def _batch_gradients(network: ScoredNetwork, images: Inputs, labels: Labels) -> Gradients:
    """Returns the gradients of one batch; those of weights are of the summed loss."""
    leaves = leaves_at(network, network.writers)
    used: list[tuple[str, Tensor]] = []  # reader and its gate, call by call

    def gate(name: str, read: Tensor) -> Tensor:
        dim = channel_dim(network.model.get_submodule(name)) % read.ndim
        ones = torch.ones(len(read), read.shape[dim], dtype=read.dtype, device=read.device)
        used.append((name, ones.requires_grad_()))
        shape = [len(read), *[1] * (read.ndim - 1)]
        shape[dim] = -1
        return read * ones.reshape(shape)

    with input_hooks(network, gate) as model, torch.enable_grad():
        output = functional_call(model, leaves, *arguments(model, images))
        losses = network.losses(output, labels)
        found = torch.autograd.grad(
            losses.sum(),
            [*(ones for _, ones in used), *leaves.values()],
            allow_unused=True,
            materialize_grads=True,
        )
    of_gates, of_weights = found[: len(used)], found[len(used) :]
    calls: dict[str, list[Tensor]] = {group.name: [] for group in network.groups}
    for (name, _), gradient in zip(used, of_gates, strict=True):
        for group, index in network.inputs[name]:
            summed = gradient[:, torch.from_numpy(index)].sum(2)
            calls[group].append(by_image(summed, len(images)).sum(1).double())
    return Gradients(
        gates={group: stacked(group, parts) for group, parts in calls.items()},
        weights=dict(zip(leaves, of_weights, strict=True)),
    )


def reader_gradients(network: ScoredNetwork, batches: Batches) -> ImportanceScores:
    """Returns the size of the mean loss's gradient to what reads each channel.

    `sum over readers of |dL/dW_j|_F`. It is no criterion: in difference to gradients of gates, it
    says of a channel whose readers are at zero what it would be worth to read it.

    Args:
        network: in evaluation mode.
        batches: images and labels, on the model's device.
    """
    leaves = leaves_at(network, network.readers)
    totals = {name: torch.zeros_like(leaf, dtype=torch.float64) for name, leaf in leaves.items()}
    for images, labels in batches:
        with torch.enable_grad():
            output = functional_call(network.model, leaves, *arguments(network.model, images))
            losses = network.losses(output, labels)
            found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        for name, gradient in zip(leaves, found, strict=True):
            totals[name] += gradient
    count = sum(len(images) for images, _ in batches)
    return {
        group: array(sum(place.rows(totals[place.weight]).norm(dim=1) for place in places) / count)
        for group, places in network.readers.items()
    }


def leaves_at(network: ScoredNetwork, *places: Mapping[str, Sequence[Place]]) -> dict[str, Tensor]:
    """Returns the weights at some places by name, to differentiate by.

    They share the model's memory, not its gradients: nothing is left in the model.
    """
    weights = (place.weight for groups in places for own in groups.values() for place in own)
    return {name: network.model.get_parameter(name).detach().requires_grad_() for name in weights}


class Taylor(OnGates):
    """Squared first-order change of the loss when a channel goes.

    `s_j = mean over images of (dL_n/dm_j)^2`: first order, on gates. The authors square batch by
    batch.
    """

    source = "Molchanov et al. 2019, arXiv 1906.10771"
    coupled = "squares averaged over readers"

    def score_group(self, network: ScoredNetwork, group: ChannelGroup, gates: Tensor) -> Tensor:
        """See `OnGates.score_group`."""
        return gates.square().mean((0, 1))


class Snip(OnGates):
    """Absolute first-order change of the mean loss when a channel goes.

    `s_j = |mean over images of dL_n/dm_j|`: connection sensitivity with a gate on a channel in
    place of a weight.
    """

    source = "Lee et al. 2019, arXiv 1810.02340; for channels ours"
    coupled = "gradients summed over readers, then absolute"

    def score_group(self, network: ScoredNetwork, group: ChannelGroup, gates: Tensor) -> Tensor:
        """See `OnGates.score_group`."""
        return gates.sum(0).mean(0).abs()


class GroupFisher(OnGates):
    """Fisher information of a channel's gate, for each activation element saved.

    `s_j = mean over images of (sum over readers of dL_n/dm_j)^2 / dM` (eqs. 3 and 4): coupled
    gradients are summed before they are squared. dM is the number of elements that the group's
    writers put out for one channel.
    """

    source = "Liu et al. 2021, arXiv 2108.00708"
    coupled = "gradients summed over readers, then squared"

    def score_group(self, network: ScoredNetwork, group: ChannelGroup, gates: Tensor) -> Tensor:
        """See `OnGates.score_group`."""
        return gates.sum(0).square().mean(0) / self.saved(network, group)

    def saved(self, network: ScoredNetwork, group: ChannelGroup) -> int:
        """Returns what dropping one channel saves for one image."""
        return sum(
            layer.outputs * place.index.shape[1]
            for place in network.writers[group.name]
            for layer in place.layers
        )


class GroupFisherMACs(GroupFisher):
    """Fisher information of a channel's gate, for each multiply-accumulate saved.

    As `group_fisher`, with the MACs of one channel in its writers and readers in place of dM; the
    paper finds memory to be the better divisor for speed on GPUs.
    """

    def saved(self, network: ScoredNetwork, group: ChannelGroup) -> int:
        """See `GroupFisher.saved`."""
        return sum(
            layer.positions * place.rows(network.weight(place)).shape[1]
            for places in (network.writers, network.readers)
            for place in places[group.name]
            for layer in place.layers
        )


class Drive(OnGradients):
    """Magnitude, connection sensitivity and convergence sensitivity of the filters, together.

    Each weight w with gradient g of the mean loss has `|w| / mean |w| + |w g| / mean |w g| +
    |g| / mean |g|`, the means over all weights that write scored channels; a channel takes the
    mean over its filters. The paper merges these three terms; how it weighs them could not be
    read, so equal weights and exponents of one are ours.
    """

    source = "Saikumar and Varghese 2024, arXiv 2404.03687; for channels ours"
    coupled = "mean over all weights of all writers"

    def score(
        self, network: ScoredNetwork, evidence: Gradients, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        means, counts = {}, []
        for group, places in network.writers.items():
            weight = torch.cat([p.rows(network.weight(p)) for p in places], dim=1)
            gradient = torch.cat([p.rows(evidence.weights[p.weight]) for p in places], dim=1)
            terms = torch.stack([weight.abs(), (weight * gradient).abs(), gradient.abs()])
            means[group] = terms.mean(2)  # (terms, channels)
            counts.append(weight.numel())
        by_group = torch.stack([own.mean(1) for own in means.values()], dim=1)
        overall = by_group @ torch.tensor(counts).to(by_group) / sum(counts)
        overall[overall == 0] = 1
        return {group: array((own / overall[:, None]).sum(0)) for group, own in means.items()}
