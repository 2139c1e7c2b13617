"""The cost of running a network in one runtime: time, and energy where a counter tells."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, final

from evosearch.study.timing import Conditions, Timing


@final
@dataclass(frozen=True, kw_only=True)
class Energy:
    """A network's energy for one image, measured against the base network's, both in turn.

    Intervals are of 95 % confidence, by order statistics of the rounds.

    Attributes:
        joules: median over rounds, of one image.
        low, high: its interval.
        ratio: median over rounds of the energy as a share of the base network's.
        ratio_low, ratio_high: its interval.
        base_joules: median of the base network.
        rounds: how often both were measured.
        covers: what the counter counts, such as "GPU energy, idle power included".
    """

    joules: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    base_joules: float
    rounds: int
    covers: str

    def __str__(self) -> str:
        return (
            f"{format_energy(self.joules)} an image, {self.ratio:.1%} of the base network's"
            f" {format_energy(self.base_joules)} (95 % interval {self.ratio_low:.1%} to"
            f" {self.ratio_high:.1%}, {self.rounds} rounds): {self.covers}"
        )


@final
@dataclass(frozen=True, kw_only=True)
class RuntimeCost:
    """What a network costs to run, beside the base network, in one runtime.

    Attributes:
        conditions: that it holds under.
        timing: of a batch.
        energy: of an image; None where no counter is readable.
    """

    conditions: Conditions
    timing: Timing
    energy: Energy | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns it as a card has it; energy that nobody read is not there."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            KeyError, TypeError: it is malformed.
        """
        return cls(
            conditions=Conditions(**entry["conditions"]),
            timing=Timing(**entry["timing"]),
            energy=Energy(**entry["energy"]) if "energy" in entry else None,
        )

    def is_of_same(self, other: Self) -> bool:
        """Returns whether both were measured alike, but for the versions of what ran them."""
        own, its = (
            (c.device, c.runtime, c.batch, c.threads) for c in (self.conditions, other.conditions)
        )
        return own == its

    def __str__(self) -> str:
        energy = "" if self.energy is None else f"; energy {self.energy}"
        return f"{self.conditions}: {self.timing}{energy}"


def format_energy(joules: float) -> str:
    """Returns an energy with three significant digits and its unit, such as "3.52 mJ"."""
    for unit, scale in (("J", 1.0), ("mJ", 1e-3)):
        if joules >= scale * 0.9995:
            return f"{joules / scale:.3g} {unit}"
    return f"{joules / 1e-6:.3g} uJ"
