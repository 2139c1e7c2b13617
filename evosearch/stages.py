"""The stages of whatever takes its time, as those who wait are told of them."""

import time
from collections.abc import Callable
from typing import final

OnStage = Callable[[str], None]
"""Told what is being done: the name of a stage, and behind a colon how far it is."""


@final
class Countdown:
    """Tells how far a stage of steps that take alike is, and how long the rest will take."""

    def __init__(self, on_stage: OnStage, name: str, steps: int, unit: str) -> None:
        """Tells that the stage begins.

        Args:
            on_stage: is told.
            name: of the stage.
            steps: in all.
            unit: what a step is, in the plural.
        """
        self._on_stage, self._name, self._steps, self._unit = on_stage, name, steps, unit
        self._began = time.monotonic()
        on_stage(f"{name}: {steps} {unit}")

    def done(self, count: int) -> None:
        """Tells that so many steps are done, one at least."""
        left = (time.monotonic() - self._began) / count * (self._steps - count)
        rest = f", about {duration(left)} left" if count < self._steps else ""
        self._on_stage(f"{self._name}: {count} of {self._steps} {self._unit}{rest}")


def duration(seconds: float) -> str:
    """Returns seconds, minutes or hours in a few characters."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
