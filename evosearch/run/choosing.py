"""The channels that stay at a cut: scored by a criterion, and chosen by a plan rule."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from torch import nn

from evosearch.criteria import criterion_class, score_channels
from evosearch.criteria.base import Batches, Needs
from evosearch.criteria.gradients import reader_gradients
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.errors import InputError, unknown_name
from evosearch.models.copying import copied
from evosearch.models.modes import evaluating
from evosearch.refit.gram import collect_statistics, gram_blocks
from evosearch.refit.norms import recalibrate
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import Bits, ChannelGroup, Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies.fixed_plans import (
    global_mask,
    relative_mask,
    triangular_mask,
    uniform_mask,
)
from evosearch.strategies.genetic_layer import GeneticConfig, evolve
from evosearch.surgery.discovery import Discovery
from evosearch.tasks.task import Task
from evosearch.training.recipes import PruneConfig


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """A rule that gives the mask of a budget.

    Attributes:
        mask: space, budget and scores -> mask.
        by_scores: whether scores decide its widths, and not its channels alone.
        compares: whether it reads scores on one scale for all groups.
    """

    mask: Callable[[SearchSpace, Budget, ImportanceScores], Mask]
    by_scores: bool = False
    compares: bool = False


PLANS = {
    "uniform": Plan(mask=uniform_mask),
    "triangular": Plan(mask=triangular_mask),
    "global": Plan(mask=global_mask, by_scores=True, compares=True),
    "relative": Plan(mask=relative_mask, by_scores=True),
}
"""Every rule by name; what they do is in `strategies.fixed_plans`."""


def plan_of(name: str) -> Plan:
    """Returns the rule of a name.

    Raises:
        InputError: there is none; names the nearest.
    """
    if name not in PLANS:
        raise InputError(f"[prune] plan: {unknown_name('plan', name, PLANS)}")
    return PLANS[name]


def floored(space: SearchSpace, share: float) -> SearchSpace:
    """Returns a space of which at least a share of each group's channels stays."""
    groups = tuple(
        replace(group, min_keep=max(group.min_keep, math.ceil(share * group.size)))
        for group in space.groups
    )
    return replace(space, groups=groups)


@final
@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores the channels of a network as narrow as it is.

    Attributes:
        config: names the criterion.
        batches: calibration images and their labels, on the network's device.
        task: whose loss criteria read.
        seed: the run's.
    """

    config: PruneConfig
    batches: Batches
    task: Task
    seed: int

    def mask(
        self,
        model: nn.Module,
        discovery: Discovery,
        whole: SearchSpace,
        budget: Budget,
        step: int,
    ) -> Mask:
        """Returns the mask of the plan for a budget, by scores of this moment.

        Widths that scores do not decide are those of the whole network's plan: shares of the
        widths that are left would take a channel of every group at each cut, however small it is.

        Args:
            model: BatchNorm statistics are estimated anew where the criterion reads data.
            discovery: its channel groups.
            whole: the space of the network that it was.
            budget: is met.
            step: of the training; draws derive from it.
        """
        plan, space = plan_of(self.config.plan), discovery.space
        scores = self.scores(model, discovery, step)
        if plan.by_scores:
            return plan.mask(space, budget, scores)
        level = {group.name: np.zeros(group.size) for group in whole.groups}
        widths = whole.widths(plan.mask(whole, budget, level))
        return space.top_channels(np.minimum(widths, space.full_widths), scores)

    def mask_of(
        self, model: nn.Module, discovery: Discovery, group: ChannelGroup, width: int, step: int
    ) -> Mask:
        """Returns the mask that cuts one group alone, by what its channels do at this moment.

        Args:
            model: see `mask`.
            discovery: its channel groups.
            group: one of them.
            width: that it is cut to.
            step: see `mask`.
        """
        if self.config.layerwise == "genetic":
            kept = self._evolved(model, discovery, group, width, step)
        else:
            scores = self.scores(model, discovery, step, [group])[group.name]
            kept = np.isin(np.arange(group.size), np.argsort(-scores, kind="stable")[:width])
        return Mask({**discovery.space.full_mask(), group.name: kept})

    def _evolved(
        self, model: nn.Module, discovery: Discovery, group: ChannelGroup, width: int, step: int
    ) -> Bits:
        images = [images for images, _ in self.batches]
        recalibrate(model, images)
        with evaluating(model):
            found = collect_statistics(model, [group], discovery.layers, images, self.seed)
        gram = gram_blocks(model, [group], found)[group.name, group.name]
        rng = generator(self.seed, Stream.GENETIC, group.name, step)
        return evolve(gram, width, GeneticConfig(), rng).keep

    def scores(
        self,
        model: nn.Module,
        discovery: Discovery,
        step: int,
        groups: Sequence[ChannelGroup] | None = None,
    ) -> ImportanceScores:
        """Returns the scores of this moment, on one scale where the plan compares groups.

        Args:
            model: see `mask`.
            discovery: its channel groups.
            step: see `mask`.
            groups: those of them that are scored; by default all.
        """
        name, plan = self.config.criterion, plan_of(self.config.plan)
        kind = criterion_class(name)
        if kind.needs is not Needs.NOTHING:
            recalibrate(model, [images for images, _ in self.batches])
        network = self._network(model, discovery, groups)
        rng = generator(self.seed, Stream.STATISTICS, "prune", step)
        with evaluating(model):
            scores = score_channels([name], network, self.batches, rng)[name]
        if not plan.compares:
            return scores
        return {group: kind.normaliser(own) for group, own in scores.items()}

    def growth(self, model: nn.Module, discovery: Discovery) -> ImportanceScores:
        """Returns how fast each channel would come to be read; see `reader_gradients`."""
        model = copied(model)
        recalibrate(model, [images for images, _ in self.batches])
        with evaluating(model):
            return reader_gradients(self._network(model, discovery), self.batches)

    def _network(
        self,
        model: nn.Module,
        discovery: Discovery,
        groups: Sequence[ChannelGroup] | None = None,
    ) -> ScoredNetwork:
        return ScoredNetwork(
            model=model,
            groups=groups or discovery.space.groups,
            layers=discovery.layers,
            losses=lambda output, labels: self.task.losses(self.task.outputs(output), labels),
        )
