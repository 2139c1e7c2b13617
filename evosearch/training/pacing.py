"""Paces by name, those that go by the clock among them; and how a space file names one.

Usable without torch.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self, final

from pydantic import Field, model_validator

from evosearch.config import validated
from evosearch.errors import InputError, unknown_name
from evosearch.training.pace import NOTHING, Pace, Record
from evosearch.training.recorded_paces import Epi, Slack

LATEST = 0.75
"""Share of the steps at which a pace must be done: what a learning rate near zero cuts, training
does not make good (a cosine is at 15 % of its first rate there)."""


@final
class Start(Pace):
    """All at once, before the first step: pruning at initialisation (SNIP, SynFlow)."""

    def share(self, t: float, record: Record = NOTHING) -> float:  # noqa: ARG002
        """See `Pace.share`."""
        return 1.0


@final
class At(Pace):
    """All at once after some epochs of the whole network (as DRIVE, whose number is not known).

    Attributes:
        epoch: whole epochs before the cut; 2 is this program's choice.
        epochs: of the training; not for the user to set.
    """

    epoch: int = Field(default=2, ge=0)
    epochs: int = Field(ge=1)

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.epoch > self.epochs:
            raise ValueError(f"epoch {self.epoch} of a training of {self.epochs} epochs")
        return self

    def share(self, t: float, record: Record = NOTHING) -> float:  # noqa: ARG002
        """See `Pace.share`."""
        return float(t * self.epochs >= self.epoch - 1e-9)


class Stretched(Pace):
    """A pace that goes from nothing at `begin` to everything at `end`.

    Attributes:
        begin: t before which nothing is gone.
        end: t from which everything is.
    """

    begin: float = Field(default=0.0, ge=0, lt=1)
    end: float = Field(default=LATEST, gt=0, le=1)

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.begin >= self.end:
            raise ValueError(f"begin {self.begin:g} is not before end {self.end:g}")
        return self

    def share(self, t: float, record: Record = NOTHING) -> float:  # noqa: ARG002
        """See `Pace.share`."""
        return self.way(min(max((t - self.begin) / (self.end - self.begin), 0.0), 1.0))

    @abstractmethod
    def way(self, s: float) -> float:
        """Returns the share of the way at a share s of the stretch, both in [0, 1]."""


@final
class Linear(Stretched):
    """Evenly.

    Pruning while training (Roy et al. 2020, arXiv 2003.02800) takes a fixed number of channels
    from each layer in each epoch, as remembered, not checked against the source.
    """

    def way(self, s: float) -> float:
        """See `Stretched.way`."""
        return s


@final
class Steps(Stretched):
    """In equal steps, the first at `begin`: `p = ceil(n s) / n`.

    The iterative schedule that one-cycle pruning is compared with, with its 3 steps from 0.2 on
    (Hubens et al. 2021, arXiv 2107.02086, the authors' code).

    Attributes:
        steps: how many.
    """

    begin: float = Field(default=0.2, ge=0, lt=1)
    steps: int = Field(default=3, ge=1)

    def way(self, s: float) -> float:
        """See `Stretched.way`."""
        return math.ceil(self.steps * s) / self.steps


@final
class Cubic(Stretched):
    """Fast first, slow at the end: `p = 1 - (1 - s)^3`.

    Zhu and Gupta 2017 (arXiv 1710.01878), eq. 1. GraNet (Liu et al. 2021, arXiv 2106.10404) has
    it end at 110 of 160 epochs on CIFAR, which is the default.
    """

    end: float = Field(default=110 / 160, gt=0, le=1)

    def way(self, s: float) -> float:
        """See `Stretched.way`."""
        return 1 - (1 - s) ** 3


@final
class OneCycle(Pace):
    """Slow, fast, slow, over the whole training: `p = (1 + e^(b-a)) / (1 + e^(b-a t))`.

    One-cycle pruning (Hubens et al. 2021, arXiv 2107.02086), with a and b of the authors' readme;
    their library has b = 6. A little is gone at t = 0.

    Attributes:
        a: how fast the middle is.
        b: how late it is; `b / a` is about the t at which half is gone.
    """

    a: float = Field(default=14.0, gt=0, le=500)
    b: float = Field(default=5.0, ge=-200, le=200)

    def share(self, t: float, record: Record = NOTHING) -> float:  # noqa: ARG002
        """See `Pace.share`."""
        return (1 + math.exp(self.b - self.a)) / (1 + math.exp(self.b - self.a * t))


PACES: dict[str, type[Pace]] = {
    "start": Start,
    "at": At,
    "linear": Linear,
    "steps": Steps,
    "cubic": Cubic,
    "one_cycle": OneCycle,
    "epi": Epi,
    "slack": Slack,
}
"""Every pace by name."""


def parse_pace(
    value: object, epochs: int, where: str = "[prune] pace", *, drop: float | None = None
) -> Pace:
    """Returns the pace that a space file names.

    Args:
        value: a name, or a table of a name and settings, `{ name = "at", epoch = 2 }`.
        epochs: of the training.
        where: the key, for messages.
        drop: points of accuracy that may be lost, where that is asked for.

    Raises:
        InputError: there is no such pace, or a setting of it is unknown or out of range; or it
            ends after `LATEST`, or goes by a drop that is not asked for.
    """
    settings = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise InputError(
            f"{where} = {value!r}: expected a name, or a table such as"
            ' { name = "at", epoch = 2 }'
        )
    if name not in PACES:
        raise InputError(f"{where}: {unknown_name('pace', name, PACES)}")
    kind, given = PACES[name], {"epochs": epochs, "drop": drop}
    for key in settings.keys() & given.keys():
        own = set(kind.model_fields) - set(given)
        raise InputError(f"{where} = {name!r}: {unknown_name('key', key, own)}")
    if kind is Slack and drop is None:
        raise InputError(
            f"{where} = 'slack' shrinks to a tolerated drop of accuracy: it is for evosearch train"
            " --accuracy-drop 1.0"
        )
    known: dict[str, Any] = {key: x for key, x in given.items() if key in kind.model_fields}
    pace = validated(kind, settings | known, f"{where} = {name!r}")
    if pace.ends > LATEST:
        raise InputError(
            f"{where} = {name!r} ends after {pace.ends:.0%} of training, when the learning rate is"
            f" near its end; what is cut there is not made good: let it end by {LATEST:.0%}"
        )
    return pace
