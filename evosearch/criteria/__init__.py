"""Importance criteria: scores that rank channels inside a group.

A new one is a class in a file, and a line in `CRITERIA`; `README.md` has the steps.

================  ==================================================================
`base`            the contract of a criterion, and the kinds that read weights alone
`scored_network`  the network being scored: writers and readers of each group
`layer_inputs`    hooks on the inputs of the layers that read channels
`magnitude`       norms, counts and distances of filters; BatchNorm's scale
`coreset`         coresets of channels, sampled and reweighted
`synflow`         synaptic flow: no data, channels removed in rounds
`activations`     activation maps: one forward pass serves all
`gradients`       gradients of gates and weights: one backward pass serves all
`learned`         gates that learn: squeeze-and-excitation, consensus
`hessian`         curvature of the loss, by Hessian-vector products
`reconstruction`  errors of the layers that read a channel: two-step, lasso
`sequential`      the channels of given widths by LASSO, on the network as cut so far
`cap`             a greedy order that foresees the least-squares refit
================  ==================================================================
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from evosearch.criteria.activations import APoZ, ClassResponse, HRank, MeanActivation
from evosearch.criteria.base import Batches, Criterion, Needs
from evosearch.criteria.cap import CaP
from evosearch.criteria.coreset import Coreset
from evosearch.criteria.gradients import Drive, GroupFisher, GroupFisherMACs, Snip, Taylor
from evosearch.criteria.hessian import HAP
from evosearch.criteria.learned import MSEB, NEEDS_BUDGET, Consensus
from evosearch.criteria.magnitude import (
    FPGM,
    L1,
    L2,
    BNScale,
    InOutNorm,
    Random,
    RelativeL1,
    ZeroKeep,
)
from evosearch.criteria.reconstruction import Lasso, TwoStep
from evosearch.criteria.scored_network import Array, ScoredNetwork
from evosearch.criteria.synflow import SynFlow
from evosearch.errors import InputError, unknown_name
from evosearch.seeding import Stream, generator
from evosearch.space.knowledge import ImportanceScores

CRITERIA: dict[str, type[Criterion[Any]]] = {
    "l1": L1,
    "l2": L2,
    "random": Random,
    "relative_l1": RelativeL1,
    "zero_keep": ZeroKeep,
    "in_out_norm": InOutNorm,
    "fpgm": FPGM,
    "bn_scale": BNScale,
    "coreset": Coreset,
    "synflow": SynFlow,
    "mean_activation": MeanActivation,
    "apoz": APoZ,
    "hrank": HRank,
    "class_response": ClassResponse,
    "taylor": Taylor,
    "group_fisher": GroupFisher,
    "group_fisher_macs": GroupFisherMACs,
    "snip": Snip,
    "drive": Drive,
    "hap": HAP,
    "mseb": MSEB,
    "consensus": Consensus,
    "lasso": Lasso,
    "cap": CaP,
    "two_step": TwoStep,
}
"""Every criterion by name."""


def criterion_class(name: str) -> type[Criterion[Any]]:
    """Returns the criterion of a name.

    Raises:
        InputError: there is none; names the nearest that there is.
    """
    if name not in CRITERIA:
        raise unknown_name("criterion", name, CRITERIA)
    return CRITERIA[name]


def require_for_search(name: str) -> None:
    """Checks that a criterion scores networks that did not train for it, as those of a search.

    Raises:
        InputError: it does not, or there is none of this name.
    """
    if criterion_class(name).needs is Needs.TRAINING:
        raise InputError(NEEDS_BUDGET)


def score_channels(
    names: Iterable[str], network: ScoredNetwork, batches: Batches, rng: np.random.Generator
) -> dict[str, ImportanceScores]:
    """Scores the channels of every group by several criteria.

    Criteria of the same kind share one pass over the data. What a criterion draws does not depend
    on which others are asked for.

    Args:
        names: of criteria.
        network: what is scored; not changed.
        batches: images and labels, on the model's device.
        rng: of all draws.

    Returns:
        Criterion -> group -> `(channels,)`, higher is kept.

    Raises:
        InputError: a name is unknown, data is missing, or a score is not finite.
    """
    seed = int(rng.integers(2**62))
    wanted = list(dict.fromkeys(names))
    kinds: dict[Callable[..., Any], dict[str, Criterion[Any]]] = defaultdict(dict)
    for name in wanted:
        criterion = criterion_class(name)()
        if criterion.needs is not Needs.NOTHING and not batches:
            raise InputError(f"criterion {name!r} needs {criterion.needs.value}: no batches came")
        kinds[type(criterion).gather][name] = criterion
    found: dict[str, ImportanceScores] = {}
    for gather, criteria in kinds.items():
        drawing = generator(seed, Stream.STATISTICS, gather.__qualname__)
        evidence = gather(list(criteria.values()), network, batches, drawing)
        for (name, criterion), own in zip(criteria.items(), evidence, strict=True):
            draws = generator(seed, Stream.STATISTICS, "criterion", name)
            found[name] = criterion.score(network, own, draws)
            for group in network.groups:
                _require_finite(name, group.name, found[name][group.name])
    return {name: found[name] for name in wanted}


def _require_finite(criterion: str, group: str, scores: Array) -> None:
    if not np.isfinite(scores).all():
        raise InputError(f"criterion {criterion!r}: a score of group {group!r} is not finite")
