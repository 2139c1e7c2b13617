"""The shrinking of a network in training: the budget in force, and the channels that go for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import nn

from evosearch.criteria import criterion_class, score_channels
from evosearch.criteria.base import Batches, Needs
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.errors import InputError, unknown_name
from evosearch.models.modes import evaluating
from evosearch.refit.norms import recalibrate
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.strategies.fixed_plans import (
    global_mask,
    relative_mask,
    triangular_mask,
    uniform_mask,
)
from evosearch.surgery.discovery import Discovery
from evosearch.tasks.task import Task
from evosearch.training.pace import Pace, Record
from evosearch.training.parts import Host, Moment, Part
from evosearch.training.recipes import PruneConfig
from evosearch.training.recorded_paces import Epi

BACKWARD = 2
"""What a backward pass costs, in forward passes."""


def steps_cost(images: int, cost: Cost) -> int:
    """Returns what steps on so many images cost, forward and backward: images times MACs."""
    return (1 + BACKWARD) * images * cost.macs


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
        scores = self._scores(model, discovery, step)
        if plan.by_scores:
            return plan.mask(space, budget, scores)
        level = {group.name: np.zeros(group.size) for group in whole.groups}
        widths = whole.widths(plan.mask(whole, budget, level))
        return space.top_channels(np.minimum(widths, space.full_widths), scores)

    def _scores(self, model: nn.Module, discovery: Discovery, step: int) -> ImportanceScores:
        name, plan = self.config.criterion, plan_of(self.config.plan)
        kind = criterion_class(name)
        if kind.needs is not Needs.NOTHING:
            recalibrate(model, [images for images, _ in self.batches])
        network = ScoredNetwork(
            model=model,
            groups=discovery.space.groups,
            layers=discovery.layers,
            losses=lambda output, labels: self.task.losses(self.task.outputs(output), labels),
        )
        rng = generator(self.seed, Stream.STATISTICS, "prune", step)
        with evaluating(model):
            scores = score_channels([name], network, self.batches, rng)[name]
        if not plan.compares:
            return scores
        return {group: kind.normaliser(own) for group, own in scores.items()}


@final
class Shrinking(Part):
    """Cuts a network in training to the budget in force, step by step.

    The last cut comes when the pace is done, and is to the budget itself, which therefore holds
    by construction.

    Attributes:
        left: networks that were trained and then cut.
        image_macs: what the steps cost so far; see `steps_cost`.
    """

    def __init__(
        self,
        *,
        config: PruneConfig,
        pace: Pace,
        budget: Budget,
        scorer: Scorer,
        on_leave: Callable[[nn.Module, Mask, int, float], object],
        on_change: Callable[[Cost, Budget], None],
    ) -> None:
        """Takes how to shrink.

        Args:
            config: how often, and in how many rounds.
            pace: when how much is gone.
            budget: of one bound for each resource, which exact forms give.
            scorer: decides which channels go.
            on_leave: called before a network is cut that was trained: with it, its channels, how
                many were left before it, and the t of that moment.
            on_change: told the cost of the network and the budget in force, where either changes.
        """
        self._config, self._pace, self._budget, self._scorer = config, pace, budget, scorer
        self._on_leave, self._on_change = on_leave, on_change
        self._record: list[list[int]] = []
        self._trained = False
        self.left = self.image_macs = 0

    def joined(self, training: Host) -> None:
        """See `Part.joined`; the training must know its channel groups."""
        self._training = training
        self._whole = self._discovery.space

    @property
    def mask(self) -> Mask:
        """The channels that are left of the network that the training began with."""
        assert self._training.mask is not None
        return self._training.mask

    @property
    def is_done(self) -> bool:
        """Whether the network is within the budget, so that it shrinks no more."""
        return self._budget.violation(self._cost) == 0

    def before_step(self, moment: Moment) -> None:
        """Cuts, where a cut is due and the network is over the budget in force."""
        if self.is_done:
            return
        if moment.begins_epoch and isinstance(self._pace, Epi):
            final = self._inner(self._budget, moment.step)
            self._record.append(list(final.widths.values()))
        every = self._config.every
        last = self._ends_at(moment)
        if not last and moment.step % (moment.epoch_steps if every == "epoch" else every):
            return
        target = self._budget if last else self._in_force(moment)
        if target.violation(self._cost):
            self._cut(target, moment)

    def _ends_at(self, moment: Moment) -> bool:
        """Returns whether the pace is done, whatever the record."""
        return moment.t >= self._pace.ends

    def _in_force(self, moment: Moment) -> Budget:
        """Returns the budget in force: as much of the way from the base cost as is gone."""
        gone = self._pace.share(moment.t, Record(widths=self._record))
        amounts = {}
        for name, bound in self._budget.bounds.items():
            base = RESOURCES[name].of(self._whole.base_cost)
            amounts[name] = max(bound.high, round(base - gone * (base - bound.high)))
        return Budget.exactly(**amounts)

    def _cut(self, target: Budget, moment: Moment) -> None:
        training = self._training
        if self._trained:
            self._on_leave(training.model, self.mask, self.left, moment.t)
            self.left, self._trained = self.left + 1, False
        for left in reversed(range(self._config.rounds)):
            budget = self._between(target, left)
            inner = self._inner(budget, moment.step)
            self._training.cut(inner)
        self._on_change(self._cost, target)

    def _inner(self, budget: Budget, step: int) -> Mask:
        training = self._training
        return self._scorer.mask(training.model, self._discovery, self._whole, budget, step)

    def _between(self, target: Budget, left: int) -> Budget:
        """Returns the budget of a round that `left` others follow, equal factors apart."""
        amounts = {}
        for name, bound in target.bounds.items():
            now = RESOURCES[name].of(self._cost)
            share = min(1.0, bound.high / now) ** (1 / (left + 1))
            amounts[name] = bound.high if left == 0 else max(bound.high, round(now * share))
        return Budget.exactly(**amounts)

    def after_step(self, images: int) -> None:
        """Counts what the step cost."""
        self._trained = True
        self.image_macs += steps_cost(images, self._cost)

    def state(self) -> dict[str, Any]:
        """See `Part.state`."""
        return {
            "record": self._record,
            "trained": self._trained,
            "left": self.left,
            "image_macs": self.image_macs,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Part.restore`."""
        self._record = [list(widths) for widths in state["record"]]
        self._trained = state["trained"]
        self.left, self.image_macs = state["left"], state["image_macs"]

    @property
    def _discovery(self) -> Discovery:
        assert self._training.discovery is not None
        return self._training.discovery

    @property
    def _cost(self) -> Cost:
        return self._discovery.space.base_cost
