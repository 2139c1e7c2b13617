"""The latency model of a space on one device: conditions, predicted times, their error.

Nothing here imports torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import lcm
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from evosearch.errors import InputError
from evosearch.files import write_json
from evosearch.space.budget import Budget
from evosearch.space.cost import format_time
from evosearch.space.costform import LatencyTerm
from evosearch.space.space import SearchSpace
from evosearch.space.text import latency_from_json, latency_to_json
from evosearch.study.timing import Conditions

FORMAT = 1


class LatencyConfig(BaseModel):
    """Under which conditions latency is measured ([search.latency] in a space file).

    Attributes:
        runtime: "eager", "compile", "exported", "onnxruntime" or "onnxruntime-int8".
        batch: images in one run.
        threads: CPU threads of the runtime.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: str = "eager"
    batch: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """What a network of a space takes under some conditions, by its widths.

    Attributes:
        space_digest: of the space, without latency.
        conditions: under which it holds.
        base_picoseconds: measured time of the base network, for one batch.
        terms: the prediction, a form in the widths.
        steps: group -> channels that must go together before time is saved; 1 is not listed.
        fitted: number of networks that the terms were fitted on.
        validated: number of other networks that they were checked on.
        median_error, worst_error: of their predictions, as shares of what was measured.
        noise: median over the networks of half their timing's interval, as a share.
    """

    space_digest: str
    conditions: Conditions
    base_picoseconds: int
    terms: tuple[LatencyTerm, ...]
    steps: Mapping[str, int] = field(default_factory=dict)
    fitted: int
    validated: int
    median_error: float
    worst_error: float
    noise: float

    def __repr__(self) -> str:
        return (
            f"LatencyModel({format_time(self.base_picoseconds)} for the base network, off by"
            f" {self.median_error:.1%} in the median; {self.conditions})"
        )

    def timed(self, space: SearchSpace) -> SearchSpace:
        """Returns the space with its latency, and without removals that save no time.

        Raises:
            InputError: the model is of another space.
        """
        if space.digest != self.space_digest:
            raise InputError(
                "the latency profile is of another search space (model code or group rules"
                " changed); profile it anew"
            )
        return replace(stepped(space, self.steps), latency=self.terms)

    def require_finer(self, budget: Budget) -> None:
        """Checks that a budget is not closer to the base network than can be told apart.

        Where an accuracy is kept, all of the base network's time may be asked for: the fastest.

        Raises:
            InputError: it is.
        """
        bound = budget.bounds.get("latency")
        if bound is None:
            return
        if budget.least_accuracy is not None and bound.high >= self.base_picoseconds:
            return
        saved = 1 - bound.high / self.base_picoseconds
        if saved <= self.noise:
            raise InputError(
                f"a latency budget of {1 - saved:.1%} of the base network's saves {saved:.1%}, and"
                f" a timing here is known to ±{self.noise:.1%} only: the budget is finer than the"
                " noise; ask for less, or measure on a quieter machine"
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the model as JSON."""
        terms = [latency_to_json(term) for term in self.terms]
        return {"format": FORMAT, **asdict(self), "terms": terms}

    def save(self, path: Path) -> None:
        """Writes the model as JSON; the file is whole or absent."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            InputError: the file is no latency model of this version.
        """
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("format") != FORMAT:
                raise ValueError(f"this version reads format {FORMAT}")
            conditions = Conditions(**data.pop("conditions"))
            terms = tuple(latency_from_json(term) for term in data.pop("terms"))
            return cls(**data, conditions=conditions, terms=terms)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a latency model ({error!r})") from error


def stepped(space: SearchSpace, steps: Mapping[str, int]) -> SearchSpace:
    """Returns the space whose groups have widths in multiples of their steps as well.

    The grouping of HALP (Shen et al. 2022, arXiv 2210.06659): channels that save time only
    together go together.
    """
    groups = tuple(
        replace(group, multiple_of=lcm(group.multiple_of, steps.get(group.name, 1)))
        for group in space.groups
    )
    return replace(space, groups=groups)
