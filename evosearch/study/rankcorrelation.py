"""Spearman's rank correlation of two values over networks, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, sqrt, tanh
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from evosearch.study.scores import NORMAL

LEAST = 3
"""Networks that a rank correlation is read off, at least."""


@final
@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """How far one value orders networks as another does.

    Attributes:
        rho: from -1, the other way round, to 1, alike.
        count: of networks.
    """

    rho: float
    count: int

    @classmethod
    def between(cls, first: Sequence[float], second: Sequence[float]) -> Self | None:
        """Returns the correlation of the ranks of two values; equal values share theirs.

        Args:
            first: a value for each network.
            second: another one, of the same networks in the same order.

        Returns:
            None for fewer than three networks, or where a value is the same for all.
        """
        if len(first) < LEAST:
            return None
        one, other = (_ranks(np.array(values, dtype=np.float64)) for values in (first, second))
        spread = sqrt(float(one @ one) * float(other @ other))
        return cls(rho=float(one @ other) / spread, count=len(first)) if spread else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval, by Fisher's z with the variance of Bonett and Wright 2000.

        That is `(1 + rho^2 / 2) / (n - 3)` (Psychometrika 65), so that three networks say nothing.
        As an order that is alike throughout would have no width, `rho` is taken no nearer to 1
        than half of what the exchange of two neighbours takes from it.
        """
        if self.count <= LEAST:
            return -1.0, 1.0
        most = 1 - 6 / (self.count**3 - self.count)
        rho = min(max(self.rho, -most), most)
        half = NORMAL * sqrt((1 + rho**2 / 2) / (self.count - LEAST))
        return tanh(atanh(rho) - half), tanh(atanh(rho) + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rho:.2f} (95 % interval {low:.2f} to {high:.2f}, {self.count} networks)"


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the rank of each value about the middle one; equal values share their mean rank."""
    signs = np.sign(values[:, None] - values)
    ranks: NDArray[np.float64] = signs.sum(axis=1) / 2
    return ranks
