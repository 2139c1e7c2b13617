"""The resources that a network takes: one table of their names, units, and how budgets hold.

Everything else asks the table: how a budget is written and read, which columns stand in a table,
which axis a front has. A new row is a new budget, once `Cost` has a field of its name; one
that is not exact also needs an aim (`aims`), which measures it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from evosearch.errors import InputError
from evosearch.space.cost import Cost, format_bytes, format_count, format_time

_NUMBER = r"(?P<number>\d+(\.\d*)?|\.\d+)\s*"


@final
@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A kind of amount: how people write it, and how it is shown.

    Attributes:
        units: unit -> how many of a cost's own units it is; in upper case, "" for none.
        examples: what error messages give as such.
        show: an amount as people read it.
        unit: of numbers in JSON, and the end of their keys; one of `units`.
    """

    units: dict[str, float]
    examples: str
    show: Callable[[float], str]
    unit: str = ""

    def read(self, part: str, text: str, option: str, base: int) -> int:
        """Returns the amount that a text stands for; a share is rounded down.

        Args:
            part: the text, one end of a range.
            text: the whole text, for messages.
            option: what it was given for, for messages.
            base: the base network's, which shares refer to.

        Raises:
            InputError: it is no positive amount.
        """
        match = re.fullmatch(_NUMBER + r"(?P<unit>%|[a-zA-Z]*)", part.strip())
        unit = None if match is None else match["unit"].upper()
        if match is None or unit not in ("%", *self.units):
            raise InputError(f"{option} {text!r}: expected {self.examples}")
        number = float(match["number"])
        if unit == "" and 0 < number < 1:
            raise InputError(f"{option} {text!r}: a share is written with %: {100 * number:g}%")
        amount = int(base * number / 100) if unit == "%" else int(number * self.units[str(unit)])
        if amount < 1:
            raise InputError(f"{option} {text!r}: a budget must be positive")
        return amount

    def to_json(self, amount: int) -> float:
        """Returns an amount in `unit`; what is counted one by one stays whole."""
        scale = self.units[self.unit.upper()]
        return amount if scale == 1 else amount / scale

    def from_json(self, number: float) -> int:
        """Reads what `to_json` gave."""
        return round(number * self.units[self.unit.upper()])


COUNT = Quantity(
    units={"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    examples="an amount such as 40M, 0.5G or 12000, a share such as 50%, or a range such as"
    " 30%..70%",
    show=format_count,
)
TIME = Quantity(
    units={"S": 1e12, "MS": 1e9, "US": 1e6},
    examples="a time with its unit, such as 3.5ms, a share of the base network's, such as 60%, or"
    " a range such as 40%..70%",
    show=format_time,
    unit="ms",
)


SPACE = Quantity(
    units={
        "B": 1.0,
        "BYTES": 1.0,
        "KB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "KIB": 2.0**10,
        "MIB": 2.0**20,
    },
    examples="an amount with its unit, such as 500KB, 2MB or 1.5MiB, a share such as 50%, or a"
    " range such as 30%..70%",
    show=format_bytes,
    unit="bytes",
)


@final
@dataclass(frozen=True, kw_only=True)
class Resource:
    """Something that a network takes of what is scarce.

    Attributes:
        name: of its field in a `Cost`, and in a study's records.
        option: what users call it: `--flops`, `flops_ratio`.
        label: what tables and messages call it.
        unit: said behind an amount in a sentence, with the space before it.
        quantity: how amounts are written and shown.
        scale: how many of what users count are one of a cost's: a MAC is two FLOPs.
        exact: whether it is arithmetic in the widths, so that a budget holds by construction;
            else a model predicts it, and a budget is aimed at and then measured.
        is_usual: whether it is said of a network that no budget of it limits.
        help: what an amount of it may look like, for the command line.
    """

    name: str
    option: str
    label: str
    unit: str
    quantity: Quantity
    scale: int = 1
    exact: bool = True
    is_usual: bool = False
    help: str

    @property
    def heading(self) -> str:
        """Heading of a column or an axis: says where amounts are predicted."""
        return self.label if self.exact else f"predicted {self.label}"

    @property
    def key(self) -> str:
        """What JSON calls an amount, its unit in the name: "flops", "predicted_latency_ms"."""
        return "_".join(filter(None, (self._stem, self.quantity.unit)))

    @property
    def ratio_key(self) -> str:
        """What JSON calls an amount as a share of the base network's."""
        return f"{self._stem}_ratio"

    @property
    def _stem(self) -> str:
        return self.option if self.exact else f"predicted_{self.option}"

    def of(self, cost: Cost) -> int:
        """Returns what a network takes of it, in the cost's own unit."""
        amount: int = getattr(cost, self.name)
        return amount

    def shown(self, amount: float) -> str:
        """Returns an amount in the cost's own unit as people read it, without its unit."""
        return self.quantity.show(self.scale * amount)

    def to_json(self, cost: Cost) -> float:
        """Returns what a network takes of it in what users count, the value of `key` in JSON."""
        return self.quantity.to_json(self.scale * self.of(cost))

    def from_json(self, number: float) -> int:
        """Returns the amount in the cost's own unit that `to_json` gave as a number."""
        return self.quantity.from_json(number) // self.scale


RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        Resource(
            name="macs",
            option="flops",
            label="FLOPs",
            unit=" FLOPs",
            quantity=COUNT,
            scale=2,
            is_usual=True,
            help="50%, 30%..70% or 40M, of one image.",
        ),
        Resource(
            name="params",
            option="params",
            label="params",
            unit=" params",
            quantity=COUNT,
            is_usual=True,
            help="50%, 30%..70% or 0.2M.",
        ),
        Resource(
            name="latency",
            option="latency",
            label="latency",
            unit=" predicted latency",
            quantity=TIME,
            exact=False,
            is_usual=True,
            help="60%, 40%..70% or 3.5ms of one batch, measured on this device.",
        ),
        Resource(
            name="memory",
            option="memory",
            label="memory",
            unit=" of activations",
            quantity=SPACE,
            help="2MB, 50% or 30%..70%: activations of one image alive at once, weights apart.",
        ),
        Resource(
            name="size",
            option="size",
            label="size",
            unit=" of weights",
            quantity=SPACE,
            help="500KB, 50% or 30%..70%, of the file of the weights.",
        ),
    )
}
"""Name -> resource."""


def amounts(cost: Cost) -> str:
    """Returns what a network takes, in a few words: "172K FLOPs, 9.14K params"."""
    taken = [(r, r.of(cost)) for r in RESOURCES.values() if r.is_usual]
    return ", ".join(f"{r.shown(amount)}{r.unit}" for r, amount in taken if amount)


def resource_of(option: str) -> Resource | None:
    """Returns the resource that users call by a name; None where there is none."""
    return next((r for r in RESOURCES.values() if r.option == option), None)
