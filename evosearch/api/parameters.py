"""The parameters of the public functions: their limits, objects, a keyword for each resource."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, final, get_args

from evosearch.errors import InputError
from evosearch.space.resources import RESOURCES

if TYPE_CHECKING:
    from torch import nn

    from evosearch.tasks.task import Task

P = ParamSpec("P")
R = TypeVar("R")


@final
@dataclass(frozen=True)
class AtLeast:
    """Annotates a parameter with the least value that it may have."""

    value: int


@final
@dataclass(frozen=True)
class OfPython:
    """Annotates a parameter that takes an object, which a command line has not."""


PathLike = str | Path | os.PathLike[str]
"""A path; of a run also the `Run` itself."""
Count = Annotated[int | None, AtLeast(1)]
CountOrNone = Annotated[int | None, AtLeast(0)]
Finalists = Annotated[int | None, AtLeast(2)]
Seed = Annotated[int | None, AtLeast(0)]
Seconds = Annotated[float | None, AtLeast(0)]
Amount = str | None
"""Of a resource, as users write it."""
Model = Annotated["nn.Module | None", OfPython()]
Images = Annotated[Any, OfPython()]
"""A dataset, arrays `(images, labels)`, or a DataLoader: see `evosearch/data/README.md`."""
Splits = Annotated[Mapping[str, Any] | None, OfPython()]
"""Images of splits by name: "calibration", "search", "confirmation"."""
TaskOrName = Annotated["Task | str | None", OfPython()]
Sections = Annotated[Mapping[str, Mapping[str, Any]] | None, OfPython()]
"""What a space file says beside, by section."""
Shape = Annotated[
    Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]] | None, OfPython()
]


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function one that Python and the command line share.

    Its `**budgets` show as a keyword for each resource, named as users call it. A value under the
    least one that its parameter is annotated with is refused, and a text where several are taken,
    which would be those of its letters.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if isinstance(value, str) and _takes_several(signature.parameters[name]):
                raise InputError(f"{option_name(name)} {value!r}: expected a list, [{value!r}]")
            for least in _limits(signature.parameters[name]):
                if value is not None and value < least:
                    raise InputError(f"{option_name(name)} {value}: expected {least} or more")
        return function(*args, **kwargs)

    checked.__signature__ = _with_resources(signature)  # type: ignore[attr-defined]
    return checked


def of_command(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the parameters of a public function that its command has, too.

    Those that take objects are Python's alone; what objects may stand in for, a command needs.
    """
    parameters = inspect.signature(function).parameters.values()
    return [
        p.replace(default=p.empty) if p.kind is p.POSITIONAL_OR_KEYWORD else p
        for p in parameters
        if not any(isinstance(note, OfPython) for note in get_args(p.annotation))
    ]


def option_name(parameter: str) -> str:
    """Returns how the command line writes a parameter's name."""
    return f"--{parameter.replace('_', '-')}"


def _limits(parameter: inspect.Parameter) -> list[int]:
    notes = get_args(parameter.annotation)
    return [note.value for note in notes if isinstance(note, AtLeast)]


def _takes_several(parameter: inspect.Parameter) -> bool:
    return Sequence[str] in (parameter.annotation, *get_args(parameter.annotation))


def _with_resources(signature: inspect.Signature) -> inspect.Signature:
    """Returns a signature with a keyword for each resource in place of `**budgets`."""
    parameters = list(signature.parameters.values())
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return signature
    budgets = [
        inspect.Parameter(
            resource.option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Amount
        )
        for resource in RESOURCES.values()
    ]
    first = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    rest = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return signature.replace(parameters=[*first, *budgets, *rest])
