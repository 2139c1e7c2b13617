"""The additions to a distillation: penalties, kernels, a pace; and their keys of `[finetune]`."""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from evosearch.errors import InputError
from evosearch.training.pace import Pace
from evosearch.training.pacing import parse_pace
from evosearch.training.parts import Part
from evosearch.training.penalized import Penalized
from evosearch.training.penalties import require_penalties
from evosearch.training.recorded_paces import Epi
from evosearch.training.reparametrised import PLAIN, Reparametrised, require_kernels
from evosearch.training.towards import Goal, Towards


class AdditionsConfig(BaseModel):
    """What takes part in a fine-tuning beside distillation; what is None does not.

    Attributes:
        penalties: losses on the weights by name, each with its weight beside the distillation's.
        kernels: what weights are while they train: "orepa" (branches that add up), "2:4" or any
            N:M (of M consecutive inputs the N largest, SR-STE), "zeros" (those under the median
            stay zero). They are folded into plain weights at the end.
        pace: when how many of the channels that the plan drops are gone: fine-tuning then begins
            with the whole base network, whose least important channels leave it first. A name, or
            a table of a name and settings. Without one it begins with the network as it was cut.
        implants: share of the channels that the plan drops which come back at most, their filters
            as 1x1 convolutions, as far as the run's FLOPs and params leave room.
        average: whether the weights' mean over the last quarter of the steps competes with the
            best epoch on the search split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    penalties: dict[str, float] | None = None
    kernels: str | None = None
    pace: str | dict[str, Any] | None = None
    implants: float | None = Field(default=None, gt=0, le=1)
    average: bool | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What is set, as JSON: without keys that are None, so that a new one is none's matter."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def has_kernels(self) -> bool:
        """Whether weights are something else while they train."""
        return self.kernels not in (None, PLAIN)


def require_additions(config: AdditionsConfig, epochs: int) -> None:
    """Checks what can be checked without a network.

    Args:
        config: what is to take part.
        epochs: of the fine-tuning; of one without any, no pace is checked.

    Raises:
        InputError: a name is unknown, a value out of range, or two do not go together.
    """
    require_penalties(config.penalties or {}, "[finetune.penalties]")
    if config.kernels is not None:
        require_kernels(config.kernels, "[finetune] kernels")
    if config.implants is not None and (config.penalties or config.has_kernels or config.pace):
        raise InputError(
            "[finetune] implants are beside the channel groups that penalties, kernels and a pace"
            " go by: leave these out, or implants"
        )
    if config.pace is None:
        return
    if config.has_kernels:
        raise InputError(
            f'[finetune] kernels = "{config.kernels}" are of a network that is not cut any more,'
            " and a pace cuts it: leave one of the two out"
        )
    if epochs:
        _pace(config, epochs)


def additions(
    config: AdditionsConfig, epochs: int, rng: torch.Generator, goal: Goal | None
) -> Iterator[Part]:
    """Yields what takes part beside distillation, in the order in which it is called.

    Args:
        config: what is to take part.
        epochs: of the fine-tuning.
        rng: of what kernels begin with.
        goal: where a pace leads to.

    Raises:
        InputError: as `require_additions`.
        ValueError: there is a pace, but no goal.
    """
    require_additions(config, epochs)
    if config.kernels is not None and config.has_kernels:
        yield Reparametrised(config.kernels, rng)
    if config.pace is not None and epochs:
        if goal is None:
            raise ValueError("a pace needs a goal")
        yield Towards(goal, _pace(config, epochs))
    if config.penalties:
        yield Penalized(config.penalties)


def _pace(config: AdditionsConfig, epochs: int) -> Pace:
    """Returns the pace.

    Raises:
        InputError: it is none that goes by the clock, or ends too late.
    """
    pace = parse_pace(config.pace, epochs, "[finetune] pace")
    if isinstance(pace, Epi):
        raise InputError(
            f"[finetune] pace = {config.pace!r} decides by a record what is cut, and here the plan"
            " is given: take one_cycle, cubic, linear, steps, start or at"
        )
    return pace
