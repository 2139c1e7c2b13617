"""Choosers of channels for a cut without a search, by name; and the weights that come with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import nn

from evosearch.criteria.coreset import coreset_of
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.criteria.sequential import select_by_lasso
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.errors import InputError, unknown_name
from evosearch.run.preparation import Prepared
from evosearch.seeding import Stream, generator
from evosearch.space.mask import Mask

Chosen = tuple[Mask, nn.Module]
"""Channels, and the network of them: compact, in eval mode."""


@final
@dataclass(frozen=True, kw_only=True)
class Chooser:
    """A way to choose the channels of given widths.

    Attributes:
        choose: what the cut works with, the same with fewer calibration images, and the plan of
            the two-step errors -> channels of the same widths, and their network.
        note: what a card says of it.
    """

    choose: Callable[[Prepared, MaskEvaluator, Mask], Chosen]
    note: str | None = None


def _two_step(prepared: Prepared, few: MaskEvaluator, plan: Mask) -> Chosen:  # noqa: ARG001
    return plan, prepared.evaluator.builder.final(plan)


def _lasso(prepared: Prepared, few: MaskEvaluator, plan: Mask) -> Chosen:
    subject = prepared.subject
    widths = subject.discovery.space.widths(plan)
    mask = select_by_lasso(subject.model, subject.discovery, few.builder.thorough, widths)
    return mask, prepared.evaluator.builder.final(mask)


def _coreset(prepared: Prepared, few: MaskEvaluator, plan: Mask) -> Chosen:  # noqa: ARG001
    discovery = prepared.subject.discovery
    network = ScoredNetwork(
        model=prepared.subject.model, groups=discovery.space.groups, layers=discovery.layers
    )
    rng = generator(prepared.config.search.seed, Stream.STATISTICS, "coreset")
    mask, weighted = coreset_of(network, discovery.space.widths(plan), rng)
    return mask, prepared.evaluator.builder.plain(mask, weighted)


TWO_STEP = "two_step"
CHOOSERS = {
    TWO_STEP: Chooser(choose=_two_step),
    "lasso": Chooser(
        choose=_lasso,
        note="channels: LASSO, layer after layer on the inputs of the network as cut and refitted"
        " so far (He et al. 2017, arXiv 1707.06168)",
    ),
    "coreset": Chooser(
        choose=_coreset,
        note="channels: drawn in proportion to their importance, and what reads them reweighted"
        " (Mussay et al. 2020, arXiv 1907.04018; its bound is for linear layers); weights are not"
        " refitted",
    ),
}
"""Every way by name."""


def chooser_of(name: str) -> Chooser:
    """Returns the way of a name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name not in CHOOSERS:
        raise InputError(f"--channels: {unknown_name('way', name, CHOOSERS)}")
    return CHOOSERS[name]
