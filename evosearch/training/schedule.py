"""The schedule of a training: what the epoch loop has to know of a config."""

from typing import Protocol

from evosearch.errors import InputError


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

    @property
    def accumulate(self) -> int | None:
        """Pieces that a batch goes through the network in, whose gradients are summed; or one."""
        ...


def require_pieces(schedule: Schedule, section: str) -> None:
    """Checks that a batch has an image for each of its pieces.

    Args:
        schedule: the config.
        section: of the space file that says it, for messages.

    Raises:
        InputError: it has not.
    """
    if schedule.accumulate is not None and schedule.accumulate > schedule.batch_size:
        raise InputError(
            f"[{section}] accumulate = {schedule.accumulate}: expected at most batch_size ="
            f" {schedule.batch_size}, an image for each piece of a batch"
        )
