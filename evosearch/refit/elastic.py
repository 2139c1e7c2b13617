"""Elastic weights as networks are cut from them, and the sizes that they were trained for."""

from dataclasses import dataclass
from typing import final

from torch import nn

from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.resources import RESOURCES

NEAR = 0.25
"""How far under the smallest size a network may be, as a share: widths are whole numbers."""


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
        """Returns whether a network is about as large as those that the weights were trained for.

        Smaller ones lose: no plan as small has learned. Of several resources, one binds a plan.
        """
        if self.sizes.violation(cost):
            return False
        return any(
            RESOURCES[name].of(cost) >= (1 - NEAR) * bound.low
            for name, bound in self.sizes.bounds.items()
        )
