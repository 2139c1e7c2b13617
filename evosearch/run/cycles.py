"""Cycles: trainings one after the other, each of a network that the one before was cut to.

Imported without torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Self, final

from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES


@final
@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Where a training begins that others may have gone before.

    Attributes:
        number: of trainings before it.
        mask: the channels that it begins with, of those of the whole network.
        image_macs: what the steps before it cost.
        seconds: that the trainings before it took.
    """

    number: int
    mask: Mask
    image_macs: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return {**asdict(self), "mask": self.mask.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], sizes: Mapping[str, int]) -> Self:
        """Reads what `to_json` wrote; `sizes` are those of the whole network's groups."""
        return cls(**{**data, "mask": Mask.from_json(data["mask"], sizes)})


def next_budget(cost: Cost, base: Cost, budget: Budget, drop: float) -> Budget:
    """Returns the budget of the next cycle: the first of `base (1 - drop)^k` under a cost.

    Args:
        cost: of the network that was trained, over the budget.
        base: of the whole network.
        budget: at which the last cycle ends; none is under it.
        drop: share that a cycle takes of what is left, in (0, 1].
    """
    for power in count(1):
        amounts = {
            name: max(bound.high, round(RESOURCES[name].of(base) * (1 - drop) ** power))
            for name, bound in budget.bounds.items()
        }
        found = Budget.exactly(**amounts)
        if found.violation(cost):
            return found
    raise AssertionError("the powers of a share under 1 end at nothing")
