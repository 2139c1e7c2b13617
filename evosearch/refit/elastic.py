"""Elastic weights as networks are cut from them, and the sizes that they were trained for."""

from dataclasses import dataclass
from typing import final

from torch import nn

from evosearch.space.budget import Budget
from evosearch.space.cost import Cost


@final
@dataclass(frozen=True, kw_only=True)
class ElasticWeights:
    """One copy of the base network whose slices work.

    Attributes:
        network: the copy, in eval mode; its BatchNorm statistics are no slice's.
        sizes: exact resources and their ranges, which its plans were drawn from.
    """

    network: nn.Module
    sizes: Budget

    def serve(self, cost: Cost) -> bool:
        """Returns whether a network is no larger than those that the weights were trained for."""
        return self.sizes.violation(cost) == 0
