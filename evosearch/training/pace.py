"""A pace: when how much of a network is gone, while it trains. And the record that one may read.

Usable without torch.

`share(t, record)` is the share of the way from the base cost B0 to the budget B* that is gone once
the share t of all steps is done: the budget in force is `B0 - share * (B0 - B*)`. Publications put
a pace on the share of weights; to put it on costs is this program's form. A pace is a pure
function of t and the record, so what was interrupted goes on as it would have.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pydantic import BaseModel, ConfigDict

DONE = 0.99
"""Share of the way from which a pace counts as done."""


@final
@dataclass(frozen=True, kw_only=True)
class Record:
    """What a training has shown so far, epoch by epoch.

    Attributes:
        widths: of the mask that would be cut now to the final budget, `(epochs, groups)`.
        accuracies: in [0, 1]; the first is that of the network before anything was cut.
    """

    widths: Sequence[Sequence[int]] = ()
    accuracies: Sequence[float] = ()


NOTHING = Record()
"""The record of a training that has shown nothing yet."""


class Pace(BaseModel):
    """When how much is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def share(self, t: float, record: Record = NOTHING) -> float:
        """Returns the share of the way that is gone, in [0, 1].

        Args:
            t: share of the steps done, in [0, 1].
            record: what the training has shown; only `epi` and `slack` read it.
        """

    @property
    def ends(self) -> float:
        """The t from which at most 1 % of the way is left, whatever the record."""
        before, done = 0.0, 1.0
        if self.share(0.0) >= DONE:
            return 0.0
        for _ in range(50):
            middle = (before + done) / 2
            before, done = (before, middle) if self.share(middle) >= DONE else (middle, done)
        return done
