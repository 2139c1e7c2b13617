"""The measured time of a candidate on each rung, which says what rungs a search leaves out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import final

from evosearch.errors import InputError
from evosearch.files import write_json, writing
from evosearch.study.trial import Rung

RUNG_TIMES = "rungs.json"


@final
@dataclass(frozen=True, kw_only=True)
class Costlier:
    """A rung that costs more than the next one, so that climbing it saves nothing.

    Attributes:
        rung: that is left out.
        seconds: that it takes for a candidate.
        following: the next rung.
        following_seconds: that the next one takes.
    """

    rung: Rung
    seconds: float
    following: Rung
    following_seconds: float


@final
@dataclass(frozen=True, kw_only=True)
class RungTimes:
    """What candidates take on rungs, measured once for a run.

    Times differ from one measurement to the next, and a search has to be the same when it goes
    on: so it reads them here.

    Attributes:
        seconds: rung -> wall time of a candidate. A rung that is not there was not measured.
    """

    seconds: Mapping[Rung, float]

    @property
    def costlier(self) -> tuple[Costlier, ...]:
        """The rungs that cost more than the next one, lowest first."""
        return tuple(
            Costlier(
                rung=rung,
                seconds=self.seconds[rung],
                following=following,
                following_seconds=self.seconds[following],
            )
            for rung, following in pairwise(sorted(self.seconds))
            if self.seconds[rung] > self.seconds[following]
        )

    def save(self, folder: Path) -> None:
        """Writes them into the folder of a run.

        Raises:
            StorageError: they cannot be written.
        """
        with writing(folder / RUNG_TIMES):
            write_json(folder / RUNG_TIMES, {r.name: s for r, s in self.seconds.items()})

    @classmethod
    def load(cls, folder: Path) -> "RungTimes | None":
        """Returns those of a run; None where none were measured.

        Raises:
            InputError: the file cannot be read.
        """
        path = folder / RUNG_TIMES
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(seconds={Rung[name]: float(value) for name, value in found.items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: damaged ({type(error).__name__}: {error}); put it back, or delete it:"
                " then the rungs are timed again, and others may be left out from there on"
            ) from error
