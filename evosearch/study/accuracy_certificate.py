"""The certificate of an accuracy budget: the drops that say whether a run's winner keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from evosearch.space.budget import Budget
from evosearch.study.dropbound import drop_bound, images_to_certify, least_certifiable_drop
from evosearch.study.latency_certificate import LatencyCertificate

CONFIDENCE = 0.95
"""That a claim is right."""


@final
@dataclass(frozen=True, kw_only=True)
class ConfirmedDrop:
    """By how much a network is worse than the base network, on the confirmation split.

    Attributes:
        images: of the split.
        lost: those that the base network alone gets right; of a metric that is no share of
            images, the sum of what falls.
        gained: those that the other network alone gets right, likewise.
        bound: drop of the mean metric that is not exceeded, at `CONFIDENCE`.
    """

    images: int
    lost: float
    gained: float
    bound: float

    @classmethod
    def of(cls, before: NDArray[np.float64], after: NDArray[np.float64]) -> Self:
        """Returns what follows from the metrics of two networks on the same images.

        Args:
            before: of the base network, in [0, 1], `(images,)`.
            after: of the other network, likewise.
        """
        change = after - before
        return cls(
            images=len(change),
            lost=float((-change).clip(0).sum()),
            gained=float(change.clip(0).sum()),
            bound=drop_bound(before, after, CONFIDENCE),
        )

    def __str__(self) -> str:
        return (
            f"loses at most {_points(self.bound)}: of {self.images} confirmation images it is"
            f" wrong on {self.lost:g} that the base network gets right, and right on"
            f" {self.gained:g} that it gets wrong"
        )


@final
@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """A trial whose finished network was measured on the confirmation split.

    Attributes:
        trial: its number.
        drop: as measured.
    """

    trial: int
    drop: ConfirmedDrop

    def __str__(self) -> str:
        return f"trial {self.trial} {self.drop}"


@final
@dataclass(frozen=True, kw_only=True)
class AccuracyCertificate:
    """What was measured of the trials that an accuracy budget was to be certified for.

    Attributes:
        budget: what was asked for.
        drop: of the accuracy that it allows, as a share.
        images: of the confirmation split.
        attempts: the trials that were measured, largest first; all but the last keep `limit`.
        earlier: how many other claims were made on the same images before: by sequences of other
            trials, and of networks that the run ships.
        latency: what was timed of the winner, where the budget has a latency.
    """

    budget: Budget
    drop: float
    images: int
    attempts: tuple[Confirmation, ...]
    earlier: int = 0
    latency: LatencyCertificate | None = None

    @property
    def limit(self) -> float:
        """The drop that attempts are held to: what was asked, or the least that is certifiable."""
        return limit_of(self.drop, self.images)

    @property
    def winner(self) -> Confirmation | None:
        """The smallest trial that keeps `limit`."""
        kept = [attempt for attempt in self.attempts if attempt.drop.bound <= self.limit]
        return kept[-1] if kept else None

    @property
    def certified(self) -> bool:
        """Whether the winner keeps what was asked."""
        return self._keeps_drop and (self.latency is None or self.latency.certified)

    @property
    def _keeps_drop(self) -> bool:
        return self.winner is not None and self.limit == self.drop

    @property
    def trial(self) -> int | None:
        """The number of the trial that it is about: the winner, or else the largest."""
        about = self.winner or next(iter(self.attempts), None)
        return None if about is None else about.trial

    @property
    def claim(self) -> float | None:
        """The drop of that trial that is not exceeded, at `CONFIDENCE`; None without any."""
        if self.winner is not None:
            return self.limit
        return self.attempts[0].drop.bound if self.attempts else None

    def __repr__(self) -> str:
        return f"AccuracyCertificate({self})"

    def __str__(self) -> str:
        verdict = "certified" if self._keeps_drop else "not certified"
        drop = f"accuracy drop of {_points(self.drop)} {verdict}: {self._reason()}{self._error()}"
        return drop if self.latency is None else f"{drop}; {self.latency}"

    def _reason(self) -> str:
        if not self.images:
            return f"there are no confirmation images; {self._advice()}"
        if not self.attempts:
            return "no trial keeps it on the search split"
        winner, last = self.winner, self.attempts[-1]
        if winner is None:
            short = "" if self.limit == self.drop else f"; {self._advice()}"
            return f"{self.attempts[0]}; it is the largest that was tried{short}"
        larger = self.attempts.index(winner)
        tried = f", after {larger} larger that keep it" if larger else ""
        tried += "" if last is winner else f"; trial {last.trial}, the next, does not"
        if self._keeps_drop:
            return f"{winner}{tried}"
        return (
            f"{self.images} confirmation images certify {_points(self.limit)} at best, which"
            f" trial {winner.trial} keeps{tried}; {self._advice()}"
        )

    def _advice(self) -> str:
        if self.drop <= 0:
            return "no number of them certifies that nothing is lost"
        needed = images_to_certify(self.drop, CONFIDENCE)
        return f"it takes {needed} or more, by [data] confirmation in a new run"

    def _error(self) -> str:
        if not self.attempts:
            return ""
        return _confidence(self.earlier, " over all that was tried")

    @classmethod
    def of_record(cls, budget: Budget, record: Mapping[str, Any]) -> Self:
        """Returns the certificate of a budget that `dataclasses.asdict` gave the rest of."""
        attempts = tuple(
            Confirmation(trial=item["trial"], drop=ConfirmedDrop(**item["drop"]))
            for item in record["attempts"]
        )
        content: dict[str, Any] = {**record, "attempts": attempts, "budget": budget}
        if record.get("latency") is not None:
            content["latency"] = LatencyCertificate.of_record(budget, record["latency"])
        return cls(**content)


@final
@dataclass(frozen=True, kw_only=True)
class ConfirmedNetwork:
    """A network that a run ships, measured on the confirmation split.

    Attributes:
        name: what it is called.
        weights: digest of them.
        config: how it was trained after the search, as JSON; None where it was not.
        drop: as measured.
        earlier: how many other claims were made on the same images before.
    """

    name: str
    weights: str
    config: Mapping[str, Any] | None
    drop: ConfirmedDrop
    earlier: int

    def __str__(self) -> str:
        return f"{self.drop}{_confidence(self.earlier)}"

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """Returns the network that `dataclasses.asdict` gave."""
        return cls(**{**record, "drop": ConfirmedDrop(**record["drop"])})


def claims_beside(known: Sequence[object], own: object) -> int:
    """Returns how many claims on the confirmation images are about something else.

    Two that are about the same trials, or the same network, are one.

    Args:
        known: what was concluded before; what is no claim on these images does not count.
        own: what the new claim is about: its attempts, or its network's weights.
    """
    sequences = {claim.attempts for claim in known if isinstance(claim, AccuracyCertificate)}
    networks = {claim.weights for claim in known if isinstance(claim, ConfirmedNetwork)}
    return len((sequences | networks) - {(), own})


def _confidence(earlier: int, alone: str = "") -> str:
    """Returns how sure a claim is, and all of a run's together, where it has made others."""
    if not earlier:
        return f" ({CONFIDENCE:.0%} confidence{alone})"
    claims = earlier + 1
    together = max(0.0, 1 - claims * (1 - CONFIDENCE))  # Bonferroni's inequality
    return (
        f" ({CONFIDENCE:.0%} confidence; the run has made {claims} such claims on these images,"
        f" which hold together with {together:.0%})"
    )


def limit_of(drop: float, images: int) -> float:
    """Returns the drop that trials are held to: what was asked, or the least certifiable."""
    return max(drop, least_certifiable_drop(images, CONFIDENCE)) if images else drop


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"
