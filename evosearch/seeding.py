"""Every random draw of the program: named streams that derive from one seed."""

from enum import IntEnum
from hashlib import sha256

import numpy as np


class Stream(IntEnum):
    """What a draw is for. Two purposes never share a stream; the numbers are part of a run."""

    SPLIT = 1
    PROOF = 2
    BASE_TRAINING = 3
    STATISTICS = 4
    ASK = 5
    GENETIC = 6
    EVALUATION = 7
    FINETUNING = 8
    LATENCY = 9
    ELASTIC = 10
    BOOTSTRAP = 11


def _words(key: int | str) -> list[int]:
    """Returns a key as non-negative integers; text goes through SHA-256, never `hash`."""
    if isinstance(key, int):
        return [key]
    digest = sha256(key.encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]


def _sequence(seed: int, stream: Stream, keys: tuple[int | str, ...]) -> np.random.SeedSequence:
    entropy = [seed, int(stream)]
    for key in keys:
        entropy.extend(_words(key))
    if keys and isinstance(keys[-1], int):
        # Entropy is padded with zeros: without a count (1,) and (1, 0) would draw the same.
        entropy.append(len(keys))
    return np.random.SeedSequence(entropy)


def generator(seed: int, stream: Stream, *keys: int | str) -> np.random.Generator:
    """Returns the generator of one purpose.

    Args:
        seed: the run's seed, not negative.
        stream: what the draws are for.
        keys: what tells this draw from others of its purpose, such as a mask's key.
    """
    return np.random.default_rng(_sequence(seed, stream, keys))


def integer(seed: int, stream: Stream, *keys: int | str) -> int:
    """Returns a seed in [0, 2^31) for a library that takes an integer; see `generator`."""
    return int(_sequence(seed, stream, keys).generate_state(1)[0]) % 2**31
