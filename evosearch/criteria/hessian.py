"""The HAP criterion: the curvature of the loss, by Hessian-vector products."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from evosearch.calling import arguments
from evosearch.criteria.base import Batches, Criterion, Needs, Normaliser
from evosearch.criteria.gradients import leaves_at
from evosearch.criteria.scored_network import ScoredNetwork, array
from evosearch.models.modes import evaluating
from evosearch.space.knowledge import ImportanceScores

PROBES = 100
"""Random vectors, spread evenly over the batches; the paper's code has 300 for its one batch."""


class HAP(Criterion[dict[str, Tensor]]):
    """Hessian trace over a channel's filters times their mean squared weight.

    `s_j = tr(H_jj) / (2 p) |W_j|^2` with p weights in the filter, the trace by Hutchinson's
    estimator: the mean over Rademacher vectors v of `v_j' (H v)_j`. A trace may be negative; the
    sign is kept, for there the loss falls when the channel shrinks. The estimate is rough: two
    seeds may order channels differently.
    """

    needs = Needs.CURVATURE
    source = "Yu et al. 2022, arXiv 2101.08940"
    coupled = "sum over writers"
    normaliser = Normaliser.NONE

    @staticmethod
    def gather(
        criteria: Sequence[Any], network: ScoredNetwork, batches: Batches, rng: np.random.Generator
    ) -> Sequence[dict[str, Tensor]]:
        """Estimates the diagonal of the Hessian of the mean loss, weight by weight."""
        return [hessian_diagonal(network, batches, rng, PROBES)] * len(criteria)

    def score(
        self,
        network: ScoredNetwork,
        evidence: dict[str, Tensor],
        rng: np.random.Generator,
    ) -> ImportanceScores:
        """See `Criterion.score`."""
        scores = {}
        for group, places in network.writers.items():
            parts = []
            for place in places:
                trace = place.rows(evidence[place.weight]).sum(1)
                parts.append(trace * place.rows(network.weight(place)).square().mean(1) / 2)
            scores[group] = array(torch.stack(parts).sum(0))
        return scores


def hessian_diagonal(
    network: ScoredNetwork, batches: Batches, rng: np.random.Generator, probes: int
) -> dict[str, Tensor]:
    """Returns Hutchinson's estimate of the Hessian's diagonal at all weights of writers.

    Args:
        network: in eval mode meanwhile.
        batches: of images and labels.
        rng: of the Rademacher vectors.
        probes: vectors in all, spread evenly over the batches; each has one at least.

    Returns:
        Name of a weight -> float64, in its shape.
    """
    weights = leaves_at(network, network.writers)
    leaves = list(weights.values())
    totals = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    count = sum(len(images) for images, _ in batches)
    each = max(1, probes // len(batches))
    for images, labels in batches:
        # Fused attention has no second derivative.
        with evaluating(network.model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            output = functional_call(network.model, weights, *arguments(network.model, images))
            losses = network.losses(output, labels)
            slopes = torch.autograd.grad(
                losses.sum() / count,
                leaves,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            curved = [slope.requires_grad for slope in slopes]  # others are constant
            if not any(curved):
                continue
            for _ in range(each):
                signs = [_rademacher(leaf, rng) for leaf in leaves]
                products = torch.autograd.grad(
                    list(compress(slopes, curved)),
                    leaves,
                    list(compress(signs, curved)),
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                for name, sign, product in zip(weights, signs, products, strict=True):
                    totals[name] += (sign * product).double() / each
    return {name: total.detach() for name, total in totals.items()}


def _rademacher(like: Tensor, rng: np.random.Generator) -> Tensor:
    signs = rng.integers(0, 2, like.shape) * 2 - 1
    return torch.from_numpy(signs).to(like)
