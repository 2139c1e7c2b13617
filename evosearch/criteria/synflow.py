"""The SynFlow criterion: data-free and iterative, on the network of absolute weights."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from evosearch.calling import Inputs, arguments, each
from evosearch.criteria.base import Batches, Criterion, Needs, Normaliser
from evosearch.criteria.gradients import leaves_at
from evosearch.criteria.scored_network import Array, Place, ScoredNetwork, array
from evosearch.errors import InputError
from evosearch.refit.norms import BatchNorm
from evosearch.space.knowledge import ImportanceScores

ROUNDS = 20
"""Times that channels are removed and all others scored anew; the paper has 100."""
LEAST = 0.05
"""Share of all channels that is left after the last round."""


class SynFlow(Criterion[Inputs]):
    """Flow through a channel in the network of absolute weights, channels removed in rounds.

    `R = sum of f(1; |theta|)` and `s_j = sum W[:, j] dR/dW[:, j]` over the readers (algorithm 1).
    BatchNorm keeps only its scale `|gamma| / sqrt(variance + eps)`: with its shifts, as in the
    authors' code, flow into and out of a channel would differ. After round k of n,
    `0.05^(k/n)` of all channels are left, at least one in each group. The score is the round in
    which a channel goes, plus its rank in that round's scores as a share; of the batches only the
    size of an image is read.
    """

    needs = Needs.NOTHING
    source = "Tanaka et al. 2020, arXiv 2006.05467"
    coupled = "flow summed over readers"
    normaliser = Normaliser.NONE  # one threshold over the whole network, as in the paper

    @staticmethod
    def gather(
        criteria: Sequence[Any],
        network: ScoredNetwork,
        batches: Batches,
        rng: np.random.Generator,
    ) -> Sequence[Inputs]:
        """Returns one image of ones."""
        if not batches:
            raise InputError("synflow reads the size of an image: expected a batch, got none")
        ones = each(lambda own: torch.ones_like(own, dtype=torch.float64), batches[0][0][:1])
        return [ones] * len(criteria)

    def score(
        self, network: ScoredNetwork, evidence: Inputs, rng: np.random.Generator
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        linear = replace(network, model=absolute(network.model))
        sizes = np.array([group.size for group in network.groups])
        groups = np.repeat(np.arange(len(sizes)), sizes)
        alive, scores = np.ones(len(groups), dtype=np.bool_), np.zeros(len(groups))
        for done in range(ROUNDS):
            found = flow(linear, evidence, linear.readers)
            values = np.concatenate([found[group.name] for group in network.groups])
            # Values and not positions: channels alike get the same score.
            ordered = np.sort(values[alive])
            scores[alive] = done + np.searchsorted(ordered, values[alive]) / len(ordered)
            alive = _survivors(values, alive, groups, LEAST ** ((done + 1) / ROUNDS))
            _silence(linear, alive, groups)
        parts = np.split(scores, sizes.cumsum()[:-1])
        return {group.name: part for group, part in zip(network.groups, parts, strict=True)}


def absolute(model: nn.Module) -> nn.Module:
    """Returns a float64 copy in eval mode: absolute weights, no biases, BatchNorm a pure scale."""
    result = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            parameter.requires_grad_(False)
            parameter.copy_(parameter.abs() * (name.rpartition(".")[2] != "bias"))
        for module in result.modules():
            if isinstance(module, BatchNorm):
                shape = (module.num_features,)
                like = next(result.parameters())
                module.running_mean = like.new_zeros(shape)
                if module.running_var is None:
                    module.running_var = like.new_ones(shape)
    return result


def flow(
    network: ScoredNetwork, image: Inputs, places: Mapping[str, Sequence[Place]]
) -> dict[str, Array]:
    """Returns `sum W_j dR/dW_j` of each channel, summed over places.

    Args:
        network: whose model is `absolute`.
        image: of ones, `(1, ...)`.
        places: group name -> where in which weights its channels lie: writers or readers. On a
            stream of sums, and without depthwise convolutions, both give the same.

    Raises:
        InputError: a flow is not finite.
    """
    leaves = leaves_at(network, places)
    with torch.enable_grad():
        outputs = functional_call(network.model, leaves, *arguments(network.model, image))
        total = sum(leaf.sum() for leaf in torch.utils._pytree.tree_leaves(outputs))
        slopes = torch.autograd.grad(
            total, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
    flows = {
        name: leaf.detach() * slope
        for (name, leaf), slope in zip(leaves.items(), slopes, strict=True)
    }
    found = {
        group: array(torch.stack([p.rows(flows[p.weight]).sum(1) for p in own]).sum(0))
        for group, own in places.items()
    }
    for group, values in found.items():
        if not np.isfinite(values).all():
            raise InputError(f"synflow: the flow through group {group!r} is not finite")
    return found


def _survivors(
    values: Array, alive: NDArray[np.bool_], groups: NDArray[np.int64], share: float
) -> NDArray[np.bool_]:
    """Returns which channels stay when a share of all does; the best of each group always does.

    Args:
        values: `(all channels,)`.
        alive: which there are still.
        groups: number of each channel's group, ascending.
        share: of all channels, to keep.
    """
    ranked = np.where(alive, values, -np.inf)
    order = np.argsort(-ranked, kind="stable")
    kept = np.zeros(len(values), dtype=np.bool_)
    kept[order[: max(1, round(share * len(values)))]] = True
    _, best = np.unique(groups[order], return_index=True)
    kept[order[best]] = True
    return kept & alive


def _silence(network: ScoredNetwork, alive: NDArray[np.bool_], groups: NDArray[np.int64]) -> None:
    """Zeroes what reads channels that are gone, in the copy of the model."""
    with torch.no_grad():
        for number, places in enumerate(network.readers.values()):
            gone = ~alive[groups == number]
            for place in places:
                weight = network.model.get_parameter(place.weight).movedim(place.dim, 0)
                weight[torch.from_numpy(place.index[gone].ravel())] = 0
