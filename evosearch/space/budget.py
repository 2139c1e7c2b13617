"""What a network costs, and how much it may cost: exact arithmetic without torch.

MACs are the multiply-accumulates of convolution, linear and attention products for one image;
FLOPs are twice that, as `torch.utils.flop_counter` counts them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from evosearch.errors import InputError

RESOURCES = ("macs", "params", "activations")

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_SECONDS = {"s": 1e12, "ms": 1e9, "us": 1e6}
"""Picoseconds in a unit of time."""
_TIME = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>%|ms|us|s)", re.IGNORECASE)
_AMOUNT = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>%|[KMG]?)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one network for one image.

    Attributes:
        macs: multiply-accumulates.
        params: elements of all parameters (buffers do not count).
        activations: elements of the outputs of all convolution and linear layers.
        latency: predicted time of one batch, in picoseconds; 0 in a space without a latency model.
    """

    macs: int
    params: int
    activations: int
    latency: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations: twice the MACs."""
        return 2 * self.macs

    def relative_to(self, base: "Cost") -> dict[str, float]:
        """Returns each resource as a share of the same resource of `base`, where that has any."""
        shares = {name: getattr(self, name) / getattr(base, name) for name in RESOURCES}
        return shares | ({"latency": self.latency / base.latency} if base.latency else {})


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
    latency: Bound | None = None
    """In picoseconds as the latency model predicts them; aimed at, and then certified."""
    relative_latency: bool = False
    """Whether it was asked for as a share of the base network's latency."""
    least_accuracy: float | None = None
    """Accuracy on the search split, in [0, 1], under which a network is not feasible; aimed at
    and then measured, where the others hold by construction."""

    def __post_init__(self) -> None:
        if not self.bounds:
            raise InputError("a budget needs at least one of FLOPs, params and latency")

    @property
    def bounds(self) -> dict[str, Bound]:
        """The resources that are limited, by name."""
        named = {"macs": self.macs, "params": self.params, "latency": self.latency}
        return {name: bound for name, bound in named.items() if bound is not None}

    @property
    def size(self) -> str:
        """The resource that is minimised beside the loss: what was asked for is."""
        return next(name for name in ("latency", "macs", "params") if name in self.bounds)

    @property
    def is_range(self) -> bool:
        """Whether any resource has more than one bound to serve."""
        return any(bound.low < bound.high for bound in self.bounds.values())

    def at(self, position: float) -> "Budget":
        """Returns the single budget at `position` in [0, 1]: 0 is the smallest network."""
        points = {name: bound.at(position) for name, bound in self.bounds.items()}
        return replace(Budget.exactly(**points), relative_latency=self.relative_latency)

    @classmethod
    def exactly(cls, **amounts: int) -> Self:
        """Returns the budget of one bound on each resource that is given by name."""
        bounds: dict[str, Any] = {n: Bound(low=x, high=x) for n, x in amounts.items()}
        return cls(**bounds)

    def violation(self, cost: Cost, accuracy: float | None = None) -> float:
        """Returns by how much a network exceeds the budget.

        Args:
            cost: of the network.
            accuracy: its accuracy on the search split, where that was measured.

        Returns:
            The sum over resources of the excess as a share of the upper bound, and of what the
            accuracy lacks; 0.0 when met.
        """
        excess = 0.0
        for name, bound in self.bounds.items():
            excess += max(0, getattr(cost, name) - bound.high) / bound.high
        if self.least_accuracy is not None and accuracy is not None:
            excess += max(0.0, self.least_accuracy - accuracy)
        return excess

    def to_json(self) -> dict[str, Any]:
        """Returns the bounds as `{resource: [low, high]}`, and what else there is."""
        bounds = {name: [bound.low, bound.high] for name, bound in self.bounds.items()}
        rest = {"least_accuracy": self.least_accuracy, "relative_latency": self.relative_latency}
        return bounds | {name: value for name, value in rest.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote."""
        content: dict[str, Any] = {
            name: Bound(low=value[0], high=value[1]) if isinstance(value, list) else value
            for name, value in data.items()
        }
        return cls(**content)


@dataclass(frozen=True, kw_only=True)
class BudgetRequest:
    """A budget as a user writes it.

    Attributes:
        flops: "40M" (absolute), "50%" (of the base network) or "30%..70%" (a range).
        params: likewise, in parameters.
        latency: "3.5ms" (absolute; s, ms or us) or "60%" (of the base network), of one batch.
        accuracy_drop: points of accuracy on the search split that may be lost; then the FLOPs
            are minimised.
    """

    flops: str | None = None
    params: str | None = None
    latency: str | None = None
    accuracy_drop: float | None = None

    def __post_init__(self) -> None:
        if self.latency is None:
            return
        if self.accuracy_drop is not None:
            raise InputError("--latency and --accuracy-drop are both aimed at: give one of them")
        _read_time(self.latency)

    def resolve(self, base: Cost, base_accuracy: float | None = None) -> Budget:
        """Returns the budget in numbers.

        Args:
            base: cost of the unpruned network, which shares refer to.
            base_accuracy: its accuracy on the search split, in [0, 1], which a drop refers to.

        Raises:
            InputError: the text is no budget, or asks for more than the base network.
        """
        flops = self.flops
        floor = None
        if self.accuracy_drop is not None:
            if not 0 <= self.accuracy_drop < 100:
                raise InputError(
                    f"--accuracy-drop {self.accuracy_drop:g}: expected points of accuracy, from"
                    " 0 to under 100, such as 1.0"
                )
            if base_accuracy is None:
                raise InputError("an accuracy drop is no size; give FLOPs or params here")
            floor = base_accuracy - self.accuracy_drop / 100
            flops = flops or "100%"
        macs = None if flops is None else _parse_bound(flops, "--flops", base.flops)
        return Budget(
            macs=None
            if macs is None
            else Bound(low=max(1, macs.low // 2), high=max(1, macs.high // 2)),
            params=None
            if self.params is None
            else _parse_bound(self.params, "--params", base.params),
            latency=None if self.latency is None else _parse_latency(self.latency, base.latency),
            relative_latency=self.latency is not None and "%" in self.latency,
            least_accuracy=floor,
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


def _parse_latency(text: str, base: int) -> Bound:
    if not base:
        raise InputError("--latency: this run has no latency profile; begin a new one with it")
    number, unit = _read_time(text)
    amount = int(base * number / 100) if unit == "%" else int(number * _SECONDS[unit])
    amount = max(1, amount)
    if amount > base:
        raise InputError(
            f"--latency {text!r}: more than the base network's {format_time(base)}; nothing to cut"
        )
    return Bound(low=amount, high=amount)


def _read_time(text: str) -> tuple[float, str]:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"--latency {text!r}: expected a time with its unit, such as 3.5ms, or a share of the"
            " base network's, such as 60%"
        )
    number = float(match["number"])
    if number == 0:
        raise InputError(f"--latency {text!r}: a budget must be positive")
    return number, match["unit"].lower()


def format_time(picoseconds: float) -> str:
    """Returns a time with three significant digits and its unit, such as "3.52 ms"."""
    for unit, scale in (("s", 1e12), ("ms", 1e9)):
        if picoseconds >= scale * 0.9995:
            return f"{picoseconds / scale:.3g} {unit}"
    return f"{picoseconds / 1e6:.3g} us"


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
