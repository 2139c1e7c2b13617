"""The parameters of commands: those of the public functions, with help from their docstrings."""

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer

from evosearch.api.parameters import of_command, option_name
from evosearch.run.callbacks import Callbacks
from evosearch.space.resources import RESOURCES

Show = Callable[..., None]
"""A command: takes the parameters of a function and its own, and prints what comes of them."""


def command(
    app: typer.Typer, function: Callable[..., Any], name: str | None = None
) -> Callable[[Show], Show]:
    """Returns a decorator that adds a command to an app.

    The command takes what the function takes, in the same order: what Python gives by position is
    an argument, the rest are options. Its own keywords, which say how to print, come after those.

    Args:
        app: gets the command.
        function: of `evosearch.api`.
        name: of the command; None for that of the decorated function.
    """

    def added(show: Show) -> Show:
        taken = inspect.signature(show).parameters.values()
        own = [parameter for parameter in taken if parameter.kind is not parameter.VAR_KEYWORD]
        signature = inspect.Signature([*_shared(function), *own])
        show.__signature__ = signature  # type: ignore[attr-defined]
        show.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        app.command(name)(show)
        return show

    return added


def parameter_help(function: Callable[..., Any]) -> dict[str, str]:
    """Returns what the `Args` of a Google-style docstring say of each parameter, as sentences."""
    _, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    found = re.findall(r"^ {4}(\S+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: _sentence(text) for name, text in found}


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return f"{words[0].upper()}{words[1:].removesuffix('.')}."


def _shared(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns a function's parameters as typer takes them."""
    amounts = {resource.option: resource.help for resource in RESOURCES.values()}
    help_of = amounts | parameter_help(function)
    return [
        inspect.Parameter(
            parameter.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=parameter.default,
            annotation=Annotated[
                _typed(parameter.annotation), _declared(parameter, help_of[parameter.name])
            ],
        )
        for parameter in of_command(function)
        if parameter.annotation is not Callbacks
    ]


def _declared(parameter: inspect.Parameter, text: str) -> Any:
    if parameter.kind is not parameter.KEYWORD_ONLY:
        return typer.Argument(help=text, metavar=parameter.name.upper())
    return typer.Option(option_name(parameter.name), help=text)


def _typed(annotation: Any) -> Any:
    """Returns what the command line reads for a type: one of its kinds, or none."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Sequence:
        return list[_typed(get_args(annotation)[0])]  # type: ignore[misc]
    kinds = get_args(annotation) or (annotation,)
    several = [_typed(kind) for kind in kinds if get_origin(kind) is Sequence]
    kind = next((k for k in (*several, Path, str) if k in (*several, *kinds)), kinds[0])
    return kind | None if NoneType in kinds else kind
