"""The scope of objects: a model, data and a task that a program gives in place of names.

A space file names things, and a name may be `"object:model"`: what the call in progress was given
under that name. So objects take the same way as names from there on. A scope lasts for a call,
and is of its thread alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from evosearch.errors import InputError

SOURCE = "object"
"""What stands before the colon of a name that means an object."""
MODEL, DATA, TASK = (f"{SOURCE}:{name}" for name in ("model", "data", "task"))
"""The names; of the model and the data the object is a callable, as that of any other name is."""

Objects = Mapping[str, Any]
"""Name -> object."""

_SCOPE: ContextVar[Objects] = ContextVar("objects", default={})  # noqa: B039  (never changed)


@contextmanager
def given(objects: Objects) -> Iterator[None]:
    """Has names mean these objects inside the block, and no others."""
    before = _SCOPE.set(objects)
    try:
        yield
    finally:
        _SCOPE.reset(before)


def is_object(reference: str) -> bool:
    """Returns whether a name means an object."""
    return reference.partition(":")[0] == SOURCE


def is_given(reference: str) -> bool:
    """Returns whether the call in progress was given what a name means."""
    return reference in _SCOPE.get()


def object_of(reference: str, where: str) -> Any:
    """Returns the object that a name means.

    Args:
        reference: "object:NAME".
        where: the key that holds it, for messages.

    Raises:
        InputError: the call in progress was not given it.
    """
    if not is_given(reference):
        raise InputError(
            f"{where} = {reference!r}: an object of a program, which has to give it again: see"
            " evosearch.load_run"
        )
    return _SCOPE.get()[reference]
