"""What a network costs, and how much it may cost: exact arithmetic without torch.

MACs are the multiply-accumulates of convolution, linear and attention products for one image;
FLOPs are twice that, as `torch.utils.flop_counter` counts them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from evosearch.errors import InputError

RESOURCES = ("macs", "params", "activations")

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_AMOUNT = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>%|[KMG]?)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one network for one image.

    Attributes:
        macs: multiply-accumulates.
        params: elements of all parameters (buffers do not count).
        activations: elements of the outputs of all convolution and linear layers.
    """

    macs: int
    params: int
    activations: int

    @property
    def flops(self) -> int:
        """Floating-point operations: twice the MACs."""
        return 2 * self.macs

    def relative_to(self, base: "Cost") -> dict[str, float]:
        """Returns each resource as a share of the same resource of `base`."""
        return {name: getattr(self, name) / getattr(base, name) for name in RESOURCES}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Upper bounds on one resource that a run serves: from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise InputError(f"a budget must satisfy 0 < low <= high, not {self.low}..{self.high}")

    def at(self, position: float) -> int:
        """Returns the bound at `position` in [0, 1]: 0 is `low`, 1 is `high`, 0.5 midway."""
        return round(self.low + position * (self.high - self.low))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on the network; several hold together.

    A range is served as a whole: a candidate is feasible under the upper end, and strategies
    propose plans for the budgets in between (`at`).
    """

    macs: Bound | None = None
    params: Bound | None = None

    def __post_init__(self) -> None:
        if not self.bounds:
            raise InputError("a budget needs at least one of FLOPs and params")

    @property
    def bounds(self) -> dict[str, Bound]:
        """The resources that are limited, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: bound for name, bound in named.items() if bound is not None}

    @property
    def is_range(self) -> bool:
        """Whether any resource has more than one bound to serve."""
        return any(bound.low < bound.high for bound in self.bounds.values())

    def at(self, position: float) -> "Budget":
        """Returns the single budget at `position` in [0, 1]: 0 is the smallest network."""
        points = {name: bound.at(position) for name, bound in self.bounds.items()}
        return Budget(**{name: Bound(low=point, high=point) for name, point in points.items()})

    def violation(self, cost: Cost) -> float:
        """Returns by how much a network exceeds the budget.

        Args:
            cost: of the network.

        Returns:
            The sum over resources of the excess as a share of the upper bound; 0.0 when met.
        """
        excess = 0.0
        for name, bound in self.bounds.items():
            excess += max(0, getattr(cost, name) - bound.high) / bound.high
        return excess

    def to_json(self) -> dict[str, list[int]]:
        """Returns the bounds as `{resource: [low, high]}`."""
        return {name: [bound.low, bound.high] for name, bound in self.bounds.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        return cls(**{name: Bound(low=low, high=high) for name, (low, high) in data.items()})

    @classmethod
    def parse(cls, *, base: Cost, flops: str | None = None, params: str | None = None) -> Self:
        """Reads a budget as a user writes it.

        Args:
            base: cost of the unpruned network, which shares refer to.
            flops: "40M" (absolute), "50%" (of the base) or "30%..70%" (a range).
            params: likewise, in parameters.

        Raises:
            InputError: the text is no budget, or asks for more than the base network.
        """
        macs = None if flops is None else _parse_bound(flops, "--flops", base.flops)
        return cls(
            macs=None
            if macs is None
            else Bound(low=max(1, macs.low // 2), high=max(1, macs.high // 2)),
            params=None if params is None else _parse_bound(params, "--params", base.params),
        )


def _parse_bound(text: str, option: str, base: int) -> Bound:
    ends = [_parse_amount(part, text, option, base) for part in text.split("..")]
    if len(ends) > 2:
        raise InputError(f"{option} {text!r}: a range is written LOW..HIGH, such as 30%..70%")
    low, high = ends[0], ends[-1]
    if low > high:
        raise InputError(f"{option} {text!r}: the range runs backwards; write the lower end first")
    if high > base:
        raise InputError(
            f"{option} {text!r}: more than the base network's {format_count(base)}; nothing to cut"
        )
    return Bound(low=low, high=high)


def _parse_amount(part: str, text: str, option: str, base: int) -> int:
    match = _AMOUNT.fullmatch(part.strip())
    if match is None:
        raise InputError(
            f"{option} {text!r}: expected an amount such as 40M, 0.5G or 12000, a share such as"
            " 50%, or a range such as 30%..70%"
        )
    number, unit = float(match["number"]), match["unit"].upper()
    # A share is rounded down, so that the rounded bound never allows more than was asked.
    amount = int(base * number / 100) if unit == "%" else int(number * _UNITS[unit])
    if amount < 1:
        raise InputError(f"{option} {text!r}: a budget must be positive")
    return amount


def format_count(count: float) -> str:
    """Returns a count with three significant digits and its SI prefix, such as "41.2M"."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale * 0.9995:
            return (
                f"{count / scale:.3g}{unit}"
                if count < scale * 999.5
                else f"{count / scale:.0f}{unit}"
            )
    return f"{count:.0f}"
