"""Figures over seeds: their spread, and differences of methods with the interval of the mean."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one method is than another at the same seeds, in points.

    Attributes:
        mean: over the seeds.
        half: of its 95 % interval, by Student's t over the seeds; infinite for one seed.
    """

    mean: float
    half: float

    @classmethod
    def of(cls, own: Mapping[int, float], other: Mapping[int, float]) -> "Difference":
        """Returns own values less those of the other, by seed, at the seeds that both have."""
        points = [value - other[seed] for seed, value in own.items() if seed in other]
        mean, count = statistics.mean(points), len(points)
        if count == 1:
            return cls(mean=mean, half=math.inf)
        error = statistics.stdev(points) / count**0.5
        return cls(mean=mean, half=float(student.ppf(0.975, count - 1)) * error)

    @property
    def verdict(self) -> str:
        """Whether it is ahead of the other, behind it, or neither can be shown."""
        if abs(self.mean) <= self.half:
            return "level"
        return "ahead" if self.mean > 0 else "behind"

    def __str__(self) -> str:
        if math.isinf(self.half):
            return f"{self.mean:+.2f} (1 seed)"
        low, high = self.mean - self.half, self.mean + self.half
        return f"{self.mean:+.2f} ({low:+.2f} to {high:+.2f})"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Returns the mean of values and, where there are several, their standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"
