"""The rounds of successive halving: how many networks are trained, and until which epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from evosearch.errors import InputError


@final
@dataclass(frozen=True, kw_only=True)
class Round:
    """A round of finals.

    Attributes:
        networks: that are trained in it.
        until: epochs of training that each of them has at its end.
    """

    networks: int
    until: int


def halving(networks: int, epochs: int) -> tuple[Round, ...]:
    """Returns the rounds of successive halving, each of about the same cost.

    Half of the networks go on after each, with as many times more epochs as there are fewer of
    them, until two are left, which are trained to the end (Jamieson and Talwalkar 2016, arXiv
    1502.07943, algorithm 1, which goes down to one). For 2^r networks all rounds together cost
    `r 2^r / (2^r - 1)` trainings of one network: 2, 2.67 for four and 3.43 for eight.

    Args:
        networks: two or more.
        epochs: of the whole training.

    Raises:
        InputError: there are fewer epochs than rounds.
    """
    counts = [networks]
    while counts[-1] > 2:
        counts.append((counts[-1] + 1) // 2)
    if epochs < len(counts):
        raise InputError(
            f"finals of {networks} networks take {len(counts)} epochs or more, one for each round,"
            f" and {epochs} were asked for: give --epochs {len(counts)}"
        )
    whole, rounds = sum(1 / count for count in counts), list[Round]()
    for i, count in enumerate(counts):
        share = sum(1 / c for c in counts[: i + 1]) / whole
        least = rounds[-1].until + 1 if rounds else 1
        most = epochs - (len(counts) - 1 - i)
        rounds.append(Round(networks=count, until=min(max(round(share * epochs), least), most)))
    return tuple(rounds)


def epochs_of(rounds: Sequence[Round]) -> int:
    """Returns the epochs of training that all networks of all rounds take together."""
    begun = [0, *(done.until for done in rounds)]
    return sum(
        own.networks * (own.until - before) for own, before in zip(rounds, begun, strict=False)
    )
