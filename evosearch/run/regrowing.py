"""Channels cut for a while: held at zero where they are read, some regrown in exchange for others.

GraNet (Liu et al. 2021, arXiv 2106.10404) exchanges weights; that channels are exchanged, and what
follows from it, is this program's form. A network with channels held at zero trains as the cut
one, but is computed as a whole: while channels may come back, training gets no faster.
"""

import math
from typing import final

import numpy as np
from torch import nn

from evosearch.run.choosing import Scorer
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.narrowing import narrow
from evosearch.training.parts import Host

LAST = 0.01
"""What is left at the end of training of the share that was exchanged at first: 0.5 to 0.005."""


def exchanged_share(first: float, t: float) -> float:
    """Returns the share of a group's channels that is exchanged at t: half a cosine from first."""
    return first * (LAST + (1 - LAST) * (1 + math.cos(math.pi * t)) / 2)


@final
class Regrowth:
    """The channels of a network in training that are on; the others may come back.

    Attributes:
        on: the channels that are not held at zero.
    """

    def __init__(self, *, training: Host, scorer: Scorer, first: float) -> None:
        """Takes what is trained; all its channels are on.

        Args:
            training: knows its channel groups, and is not cut from here on.
            scorer: says which channels go, and which come back.
            first: share of a group's channels that is exchanged at first.
        """
        assert training.discovery is not None
        self._training, self._scorer, self._first = training, scorer, first
        self._discovery = training.discovery
        self.on = self._discovery.space.full_mask()

    def network(self) -> tuple[nn.Module, Discovery]:
        """Returns a copy of the network without the channels that are off, and its groups."""
        small = compact(self._training.model, self._discovery.space.groups, self.on)
        return small, narrow(self._discovery, self.on)

    def drop(self, inner: Mask) -> None:
        """Puts channels off; `inner` is of those that are on."""
        self.on = self.on.then(inner)
        self.hold()

    def hold(self) -> None:
        """Puts what reads the channels that are off back to zero; after every step."""
        self._training.silence(self.on)

    def counts(self, t: float) -> dict[str, int]:
        """Returns how many channels of each group give way at t, and as many come back."""
        share = exchanged_share(self._first, t)
        return {
            name: min(int(share * width), self.on[name].size - width)
            for name, width in self.on.widths.items()
        }

    def exchange(self, t: float, step: int) -> None:
        """Puts the least important channels off, and as many others on; widths stay.

        Those come back whose readers, at zero, have the largest gradients: channels by a gradient
        of their own would all be at zero. They have the filters that they had, as momentum and
        weight decay moved them on, and change nothing until the next step.

        Args:
            t: share of the steps done.
            step: of the training; draws derive from it.
        """
        scores = self._scorer.scores(*self.network(), step)
        growth = self._scorer.growth(self._training.model, self._discovery)
        bits = {}
        for name, count in self.counts(t).items():
            on, off = np.flatnonzero(self.on[name]), np.flatnonzero(~self.on[name])
            weakest = on[np.argsort(scores[name], kind="stable")[:count]]
            strongest = off[np.argsort(-growth[name][off], kind="stable")[:count]]
            bits[name] = self.on[name].copy()
            bits[name][weakest], bits[name][strongest] = False, True
        self.on = Mask(bits)
        self.hold()
