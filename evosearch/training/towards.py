"""The part of a training that takes a network to channels that are given, at a pace."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from evosearch.space.knowledge import ImportanceScores
from evosearch.space.mask import Mask
from evosearch.training.pace import Pace
from evosearch.training.parts import Host, Moment, Part

EVERY = 25
"""Steps between cuts, at least."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """The channels that a network ends with, and the order in which the others go.

    Attributes:
        mask: what stays of the network that the training begins with.
        scores: importance of its channels, on one scale for all groups; the least goes first.
    """

    mask: Mask
    scores: ImportanceScores

    @cached_property
    def order(self) -> tuple[tuple[str, int], ...]:
        """The channels that go, group and number, the first to go first.

        Of equally important ones those of the first group go first, and there the first.
        """
        names = sorted(self.mask)
        going = [(n, int(place)) for n in names for place in np.flatnonzero(~self.mask[n])]
        return tuple(sorted(going, key=lambda channel: self.scores[channel[0]][channel[1]]))

    def on_the_way(self, share: float) -> Mask:
        """Returns the channels that are there when a share of those that go is gone."""
        bits = {name: np.ones_like(own) for name, own in self.mask.items()}
        for name, place in self.order[: round(share * len(self.order))]:
            bits[name][place] = False
        return Mask(bits)


@final
class Towards(Part):
    """Cuts a network in training to what is on the way to its goal.

    A pace is here the share of the channels that go which are gone: which ones, and when, is
    settled before the first step, so there is nothing to remember. From the t on at which the
    pace is done, and in the last step at the latest, the network has the goal's channels, exactly.
    """

    def __init__(self, goal: Goal, pace: Pace) -> None:
        """Takes where to go, and how fast."""
        self._goal, self._pace, self._ends = goal, pace, pace.ends

    def joined(self, training: Host) -> None:
        """See `Part.joined`; the training must know its channel groups."""
        if training.discovery is None:
            raise ValueError("a pace needs the network's channel groups")
        self._training = training

    def before_step(self, moment: Moment) -> None:
        """Cuts, where a cut is due and channels are to go."""
        last = moment.t >= self._ends or moment.is_last
        if not last and moment.step % EVERY:
            return
        wanted = self._goal.on_the_way(1.0 if last else self._pace.share(moment.t))
        now = self._training.mask
        assert now is not None
        if wanted != now:
            self._training.cut(Mask({name: wanted[name][bits] for name, bits in now.items()}))
