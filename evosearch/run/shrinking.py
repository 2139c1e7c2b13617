"""The shrinking of a network in training: the budget in force, and the cuts to it."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, final

import numpy as np
from torch import nn

from evosearch.run.choosing import Scorer
from evosearch.run.regrowing import Regrowth
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.surgery.discovery import Discovery
from evosearch.training.pace import Pace, Record
from evosearch.training.pacing import LATEST
from evosearch.training.parts import Host, Moment, Part
from evosearch.training.recipes import PruneConfig
from evosearch.training.recorded_paces import Epi, Slack

BACKWARD = 2
"""What a backward pass costs, in forward passes."""


def steps_cost(images: int, cost: Cost) -> int:
    """Returns what steps on so many images cost, forward and backward: images times MACs."""
    return (1 + BACKWARD) * images * cost.macs


@final
class Shrinking(Part):
    """Cuts a network in training to the budget in force, step by step.

    The last cut comes when the pace is done, and is to the budget itself, which therefore holds
    by construction. Where channels may come back, cut ones are held at zero until `LATEST`. Under
    a tolerated drop there is no last cut: the budget in force falls while accuracy leaves room.

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
            budget: of one bound for each resource, which exact forms give; under a tolerated
                drop, the smallest network.
            scorer: decides which channels go.
            on_leave: called before a network is cut that was trained: with it, its channels, how
                many were left before it, and the t of that moment.
            on_change: told the cost of the network and the budget in force, where either changes.
        """
        self._config, self._pace, self._budget, self._scorer = config, pace, budget, scorer
        self._on_leave, self._on_change = on_leave, on_change
        self._ends = LATEST if config.regrow else pace.ends
        self._regrowth: Regrowth | None = None
        self._planned: list[int] = []
        self._slack = pace if isinstance(pace, Slack) else None
        self._widths: list[list[int]] = []
        self._accuracies: list[float] = []
        self._trained = False
        self.left = self.image_macs = 0

    def joined(self, training: Host) -> None:
        """See `Part.joined`; the training must know its channel groups."""
        self._training = training
        self._whole = self._discovery.space
        if self._config.regrow:
            self._regrowth = Regrowth(
                training=training, scorer=self._scorer, first=self._config.regrow
            )

    @property
    def mask(self) -> Mask:
        """The channels that are left of the network that the training began with."""
        if self._regrowth is not None:
            return self._regrowth.on
        assert self._training.mask is not None
        return self._training.mask

    @property
    def is_done(self) -> bool:
        """Whether the network is within the budget, so that it shrinks no more."""
        return self._regrowth is None and self._budget.violation(self._cost) == 0

    @property
    def may_finish(self) -> bool:
        """Whether the network may be what the training ends with, as it is."""
        return self.is_done or self._slack is not None

    @property
    def tolerance(self) -> float:
        """The share that is left of a tolerated drop, after the last epoch; else 1."""
        left = [] if self._slack is None else self._slack.tolerances(self._record)
        return left[-1] if left else 1.0

    @property
    def is_over(self) -> bool:
        """Whether a tolerated drop is used up for good, so that training ends early."""
        return self._slack is not None and self._slack.is_over(self._record)

    def scored(self, accuracy: float) -> None:
        """Is told the accuracy after every epoch; the first is that before any step."""
        self._accuracies.append(accuracy)

    def before_step(self, moment: Moment) -> None:
        """Cuts, where a cut is due and the network is over the budget in force."""
        if self.is_done:
            return
        if moment.begins_epoch and isinstance(self._pace, Epi):
            final = self._inner(self._budget, moment.step)
            self._widths.append(list(final.widths.values()))
        every = self._config.every
        last = (moment.t >= self._ends or moment.is_last) and self._slack is None
        if not last and moment.step % (moment.epoch_steps if every == "epoch" else every):
            return
        self._training.require_finite()
        target = self._budget if last else self._in_force(moment)
        if target.violation(self._cost):
            self._cut(target, moment)
        if self._regrowth is None:
            return
        if last:
            left, self._regrowth = self._regrowth.on, None
            self._training.cut(left)
        elif any(self._regrowth.counts(moment.t).values()):
            self._leave(moment)
            self._regrowth.exchange(moment.t, moment.step)

    def _in_force(self, moment: Moment) -> Budget:
        """Returns the budget in force: as much of the way from the base cost as is gone."""
        gone = self._pace.share(moment.t, self._record)
        if self._config.layerwise is not None:
            return self._in_groups(gone, moment.step)
        amounts = {}
        for name, bound in self._budget.bounds.items():
            base = RESOURCES[name].of(self._whole.base_cost)
            end = bound.high if self._slack is None else 0
            amounts[name] = max(bound.high, round(base - gone * (base - end)))
        return Budget.exactly(**amounts)

    def _leave(self, moment: Moment) -> None:
        if self._trained:
            self._on_leave(self._training.model, self.mask, self.left, moment.t)
            self.left, self._trained = self.left + 1, False

    def _cut(self, target: Budget, moment: Moment) -> None:
        self._leave(moment)
        drop = self._training.cut if self._regrowth is None else self._regrowth.drop
        if self._config.layerwise is None:
            for left in reversed(range(self._config.rounds)):
                drop(self._inner(self._between(target, left), moment.step))
        else:
            while target.violation(self._cost):
                drop(self._next_group(moment.step))
        self._on_change(self._cost, target)

    def _in_groups(self, gone: float, step: int) -> Budget:
        """Returns the cost where that share of the groups is cut, of those that are to be."""
        widths = self._whole.full_widths.copy()
        if gone > 0:
            plan = np.array(self._plan(step))
            places = np.flatnonzero(plan < widths)
            first = places[: ceil(gone * len(places))]
            widths[first] = plan[first]
        cost = self._whole.cost_of_widths(widths)
        return Budget.exactly(**{name: getattr(cost, name) for name in self._budget.bounds})

    def _next_group(self, step: int) -> Mask:
        """Returns the mask that cuts the first group that is wider than the plan has it."""
        discovery = self._discovery
        pairs = zip(discovery.space.groups, self._plan(step), strict=True)
        group, width = next((group, width) for group, width in pairs if width < group.size)
        return self._scorer.mask_of(self._training.model, discovery, group, width, step)

    def _plan(self, step: int) -> list[int]:
        """Returns the widths for the whole budget, as they were found when first asked for."""
        if not self._planned:
            self._planned = list(self._inner(self._budget, step).widths.values())
        return self._planned

    def _inner(self, budget: Budget, step: int) -> Mask:
        network = self._training.model, self._discovery
        if self._regrowth is not None:
            network = self._regrowth.network()
        return self._scorer.mask(*network, self._whole, budget, step)

    def _between(self, target: Budget, left: int) -> Budget:
        """Returns the budget of a round that `left` others follow, equal factors apart."""
        amounts = {}
        for name, bound in target.bounds.items():
            now = RESOURCES[name].of(self._cost)
            share = min(1.0, bound.high / now) ** (1 / (left + 1))
            amounts[name] = bound.high if left == 0 else max(bound.high, round(now * share))
        return Budget.exactly(**amounts)

    def after_step(self, images: int) -> None:
        """Counts what the step cost: of all that was computed, held at zero or not."""
        self._trained = True
        self.image_macs += steps_cost(images, self._discovery.space.base_cost)
        if self._regrowth is not None:
            self._regrowth.hold()

    def state(self) -> dict[str, Any]:
        """See `Part.state`."""
        return {
            "planned": self._planned,
            "widths": self._widths,
            "accuracies": self._accuracies,
            "on": None if self._regrowth is None else self._regrowth.on.to_json(),
            "trained": self._trained,
            "left": self.left,
            "image_macs": self.image_macs,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Part.restore`."""
        self._planned = list(state["planned"])
        self._widths = [list(widths) for widths in state["widths"]]
        self._accuracies = list(state["accuracies"])
        if state["on"] is None:
            self._regrowth = None
        elif self._regrowth is not None:
            self._regrowth.on = Mask.from_json(state["on"], self._whole.sizes)
        self._trained = state["trained"]
        self.left, self.image_macs = state["left"], state["image_macs"]

    @property
    def _record(self) -> Record:
        return Record(widths=self._widths, accuracies=self._accuracies)

    @property
    def _discovery(self) -> Discovery:
        assert self._training.discovery is not None
        return self._training.discovery

    @property
    def _cost(self) -> Cost:
        return self._whole.cost(self.mask)
