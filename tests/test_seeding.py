"""Named random streams."""

import subprocess
import sys

import numpy as np
import pytest

from evosearch.seeding import Stream, generator, integer


def test_same_keys_same_draws() -> None:
    first = generator(3, Stream.ASK, 7, "conv1").random(5)
    np.testing.assert_array_equal(first, generator(3, Stream.ASK, 7, "conv1").random(5))
    assert integer(3, Stream.ASK, "a") == integer(3, Stream.ASK, "a")


def test_everything_that_names_a_draw_counts() -> None:
    draws = {
        integer(seed, stream, *keys)
        for seed in (0, 1)
        for stream in (Stream.ASK, Stream.GENETIC)
        for keys in ((), (0,), (1,), (0, 1), (1, 0), ("0",), ("a",), ("b",), ("a", "b"), ("ab",))
    }
    assert len(draws) == 2 * 2 * 10
    assert all(0 <= draw < 2**31 for draw in draws)


def test_streams_have_distinct_numbers() -> None:
    assert len({int(stream) for stream in Stream}) == len(Stream.__members__)


def test_draws_do_not_depend_on_the_process() -> None:
    code = (
        "from evosearch.seeding import *;print(integer(5, Stream.GENETIC, 'layer1.0.conv1', 12))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert found == {f"{integer(5, Stream.GENETIC, 'layer1.0.conv1', 12)}\n"}


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        generator(-1, Stream.ASK)
