"""The schedule of a training: what the epoch loop has to know of a config."""

from typing import Protocol


class Schedule(Protocol):
    """What the epoch loop needs to know of a config."""

    @property
    def epochs(self) -> int:
        """Passes over the train split."""
        ...

    @property
    def batch_size(self) -> int:
        """Images per step, at most."""
        ...

    @property
    def lr(self) -> float:
        """Learning rate of the first step."""
        ...

    @property
    def weight_decay(self) -> float:
        """L2 penalty on all parameters that SGD moves."""
        ...
