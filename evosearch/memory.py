"""The batch sizes that fit into the memory of a device, found by halving."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from evosearch.errors import MemoryExhausted

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_CPU_REFUSALS = ("can't allocate memory", "not enough memory", "bad_alloc")
"""What torch says in a RuntimeError where the system gives no more memory."""
_fitting: dict[tuple[str, str], int] = {}
"""The largest batch for each purpose and device of this process, where a larger did not fit."""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that a device or the system has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_REFUSALS)


@contextmanager
def memory_needed(says: str) -> Iterator[None]:
    """Makes a lack of memory inside the block an error of one line.

    Raises:
        MemoryExhausted: there was not enough.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryExhausted(f"{says}: not enough memory") from error
        raise


def largest_fitting(
    purpose: str, device: torch.device, size: int, work: Callable[[int], T], *, least: int = 1
) -> T:
    """Does work with the largest batches that fit: of the size wanted, or half, or a quarter.

    What fitted is remembered for the purpose and the device until the process ends.

    Args:
        purpose: what the batches are for, as messages say it: "scoring".
        device: whose memory it takes.
        size: images of a batch, at most.
        work: does all of it with batches of a size; after a failure it is done from the start.
        least: images of a batch that cannot be halved.

    Raises:
        MemoryExhausted: the least batch does not fit either.
    """
    key = purpose, str(device)
    size = min(size, _fitting.get(key, size))
    while True:
        try:
            return work(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size <= least:
                raise MemoryExhausted(
                    f"{purpose} on {device}: a batch of {size} does not fit into memory; free"
                    " some, or use another device or smaller images; what is recorded is kept"
                ) from error
        # Behind the handler: its traceback holds on to the tensors of the attempt.
        size = max(least, size // 2)
        _fitting[key] = size
        _logger.warning("%s on %s: out of memory, batches of %d from now on", *key, size)
        if device.type == "cuda":
            torch.cuda.empty_cache()
