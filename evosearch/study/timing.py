"""A network's latency against the base network's, and the conditions that it holds under."""

from collections.abc import Mapping
from dataclasses import dataclass

from evosearch.errors import InputError
from evosearch.space.cost import format_time


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a latency is true of.

    Attributes:
        device: the hardware, as people name it.
        runtime: what runs the network, such as "eager".
        batch: images in one run.
        threads: CPU threads.
        versions: package -> version, of what runs it.
    """

    device: str
    runtime: str
    batch: int
    threads: int
    versions: Mapping[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{self.runtime}, batch {self.batch}, {threads}, {versions}, on {self.device}"

    def require(self, now: "Conditions") -> None:
        """Checks that what was measured under these conditions holds under those of now.

        Raises:
            InputError: they differ; names both.
        """
        if self != now:
            raise InputError(
                f"latency was profiled with {self}; this is {now}: a latency holds where it was"
                " measured, so go on there, or start a new run here"
            )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A network's latency, measured against the base network's, both in turn.

    Intervals are of 95 % confidence, by order statistics of the rounds.

    Attributes:
        seconds: median time of one batch.
        low, high: its interval.
        ratio: median over rounds of the time as a share of the base network's.
        ratio_low, ratio_high: its interval.
        base_seconds: median time of the base network.
        rounds: how often both were timed.
    """

    seconds: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    base_seconds: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half the width of the ratio's interval, as a share of the ratio."""
        return (self.ratio_high - self.ratio_low) / 2 / self.ratio

    def __str__(self) -> str:
        return (
            f"{format_time(1e12 * self.seconds)}, {self.ratio:.1%} of the base network's"
            f" {format_time(1e12 * self.base_seconds)} (95 % interval {self.ratio_low:.1%} to"
            f" {self.ratio_high:.1%}, {self.rounds} rounds)"
        )
