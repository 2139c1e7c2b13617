"""Paces that a training's record decides: settled widths, a tolerated drop of accuracy.

Usable without torch.
"""

import math
from collections.abc import Sequence
from typing import final

from pydantic import Field

from evosearch.training.pace import NOTHING, Pace, Record

PEERS = 5
"""Early pruning indicators that one must not be under."""


@final
class Epi(Pace):
    """All at once when the widths that would be cut have settled: the early pruning indicator.

    Shen et al. 2022 (arXiv 2110.12007), read in others' accounts: in epoch t compare the widths n
    of the mask that would be cut now with those of the epochs before,
    `Psi(t, u) = 1 - mean_l |n_l(t) - n_l(u)| / (n_l(t) + n_l(u))`, and `EPI_t` is the mean of
    `Psi(t, t - j)` over j = 1..r. The cut comes when EPI_t is at least tau and at least each of
    the five before it. Widths of a uniform plan never change: its indicator is 1 at once, and says
    nothing.

    Attributes:
        r: epochs that one is compared with; accounts differ (5 or 20).
        tau: least indicator; by one account 0.983 for magnitudes and 0.944 for gradients, on
            ResNet-50.
        latest: t at which the cut comes at last; this program's addition.
    """

    r: int = Field(default=5, ge=1)
    tau: float = Field(default=0.983, ge=0, le=1)
    latest: float = Field(default=0.5, gt=0, le=1)

    def share(self, t: float, record: Record = NOTHING) -> float:
        """See `Pace.share`; it reads `record.widths`, and stays 1 once it is."""
        return float(t >= self.latest or self._settled(self.indicators(record)))

    def indicators(self, record: Record) -> list[float]:
        """Returns EPI of every epoch that has r epochs before it, each as it was then."""
        widths = record.widths
        return [
            math.fsum(similarity(widths[now], widths[now - j]) for j in range(1, self.r + 1))
            / self.r
            for now in range(self.r, len(widths))
        ]

    def _settled(self, indicators: Sequence[float]) -> bool:
        return any(
            indicators[now] >= max(self.tau, *indicators[now - PEERS : now])
            for now in range(PEERS, len(indicators))
        )


def similarity(now: Sequence[int], then: Sequence[int]) -> float:
    """Returns how alike the widths of two masks are: Psi of `Epi`, 1 where they are equal."""
    pairs = list(zip(now, then, strict=True))
    return 1 - math.fsum(abs(n - m) / (n + m) for n, m in pairs) / len(pairs)


@final
class Slack(Pace):
    """As fast as a tolerated drop of accuracy leaves room: the way to an empty network.

    Adaptive filter pruning with its pruning rate controller (Singh et al. 2019, arXiv 1905.04446),
    as remembered, not checked against the source: with E the accuracy before any cut and C that
    after an epoch, the tolerance left is `T = max(0, C - (E - drop))`, here at most `drop`, and
    the budget shrinks to `B (1 - delta T / drop)`. An epoch without tolerance only recovers. The
    result is the smallest network that was seen to have `C >= E - drop`, so none is handed back
    that lacked the time to recover.

    Attributes:
        drop: points of accuracy that may be lost; not a setting of its own, but the user's limit.
        delta: share of the budget that goes in an epoch with all of the tolerance left.
        patience: epochs in a row without tolerance that end it; None goes on to the end of the
            learning rates, whose fall brings accuracy back.
    """

    drop: float = Field(gt=0, lt=100)
    delta: float = Field(default=0.5, gt=0, lt=1)
    patience: int | None = Field(default=None, ge=1)

    def share(self, t: float, record: Record = NOTHING) -> float:  # noqa: ARG002
        """See `Pace.share`; it reads `record.accuracies`, and B* is 0."""
        return 1 - math.prod(1 - self.delta * left for left in self.tolerances(record))

    def tolerances(self, record: Record) -> list[float]:
        """Returns `T / drop` after every epoch, in [0, 1]; penalties are scaled by the last."""
        if not record.accuracies:
            return []
        first, *later = record.accuracies
        # Rounded: an accuracy of just `E - drop` leaves nothing, in floating point too.
        left = [round(1 + 100 * (now - first) / self.drop, 9) for now in later]
        return [min(max(part, 0.0), 1.0) for part in left]

    def is_over(self, record: Record) -> bool:
        """Returns whether the tolerance was used up for `patience` epochs in a row."""
        if self.patience is None:
            return False
        last = self.tolerances(record)[-self.patience :]
        return len(last) == self.patience and not any(last)

    @property
    def ends(self) -> float:
        """See `Pace.ends`; 0, as every network that counts has shown its accuracy."""
        return 0.0
