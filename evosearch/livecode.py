"""A digest of live values: functions by their code and all that it reads, data by its content."""

import dis
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import packages_distributions, version
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_VARARGS, CO_VARKEYWORDS
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, final

import numpy as np

from evosearch.sourcecode import code, is_installed, own_modules

_KINDS = CO_VARARGS | CO_VARKEYWORDS | CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Path, Enum)


def value_digest(value: Any) -> str:
    """Returns 32 hexadecimal digits for what a value is, the same in every process.

    Of a function of the user's own they change with its code, the values that it closes over, its
    defaults, and the globals that it reads, functions among them; not with comments, docstrings
    and layout, nor with where it lies, so that it may be defined in a notebook. Code is told apart
    as Python compiles it, so that another minor version of Python changes them as well. Of what is
    installed they change with its name and the package's version.

    Args:
        value: a function, or anything that holds some, such as a dataclass, an instance with
            `__call__`, or a nest of these.
    """
    return sha256("\n".join(_Walk().lines(value)).encode()).hexdigest()[:32]


@final
class _Walk:
    """A way through all that a value holds, in a fixed order; each object is met once."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, Any]] = {}  # id -> number, and the object, to keep its id

    def lines(self, value: Any) -> Iterator[str]:
        """Yields what a value is; of one that was met before, only which it was."""
        if isinstance(value, _PLAIN):
            yield repr(value)
        elif isinstance(value, tuple):  # equal ones may be one object, or not
            yield from self._each(value)
        elif id(value) in self._met:
            yield f"met as {self._met[id(value)][0]}"
        else:
            self._met[id(value)] = len(self._met), value
            yield from self._of(value)

    def _of(self, value: Any) -> Iterator[str]:
        if isinstance(value, ModuleType):
            yield from _module(value.__name__)
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, MethodType):
            yield from self._each((value.__func__, value.__self__))
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, BuiltinFunctionType):
            yield f"{value.__module__}.{value.__qualname__}"
        elif isinstance(value, Mapping):
            for key in sorted(value, key=_name):
                yield from self._each((key, value[key]))
        elif isinstance(value, list):
            yield from self._each(value)
        elif isinstance(value, set | frozenset):
            yield from self._each(sorted(value, key=_name))
        elif hasattr(value, "__array__"):
            yield from self._numbers(value)
        else:
            yield from self._instance(value)

    def _named(self, parts: Mapping[str, Any]) -> Iterator[str]:
        for name in sorted(parts):
            yield f"{name}:"
            yield from self.lines(parts[name])

    def _each(self, values: Sequence[Any]) -> Iterator[str]:
        yield f"{type(values).__name__} of {len(values)}"
        for value in values:
            yield from self.lines(value)

    def _function(self, value: FunctionType) -> Iterator[str]:
        yield value.__name__
        if _is_library(value.__module__ or ""):
            yield from _module(value.__module__)
        else:
            yield from _compiled(value.__code__)
            read = set(_globals_of(value.__code__)) & value.__globals__.keys()
            yield from self._named({name: value.__globals__[name] for name in read})
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from self._named({name: cell.cell_contents for name, cell in cells if _full(cell)})
        yield from self._each((value.__defaults__, value.__kwdefaults__))

    def _class(self, value: type) -> Iterator[str]:
        yield value.__qualname__
        if _is_library(value.__module__):
            yield from _module(value.__module__)
            return
        yield from self._each(value.__bases__)
        own = {
            name: getattr(inner, "__func__", getattr(inner, "fget", inner))
            for name, inner in vars(value).items()
            if not name.startswith("__") or isinstance(inner, FunctionType)
        }
        yield from self._named(own)

    def _instance(self, value: Any) -> Iterator[str]:
        yield from self.lines(type(value))
        if isinstance(value, partial):
            yield from self._each((value.func, value.args, value.keywords))
        elif is_dataclass(value):
            yield from self._named({own.name: getattr(value, own.name) for own in fields(value)})
        elif state := object.__getstate__(value):  # attributes, and those in slots after them
            yield from self.lines(state)
        elif " at 0x" not in repr(value):
            yield repr(value)

    def _numbers(self, value: Any) -> Iterator[str]:
        """Yields what an array holds, or a tensor on whichever device."""
        if hasattr(value, "detach"):
            import torch

            whole = value.detach().cpu().resolve_conj().contiguous().flatten()
            array = whole.view(torch.uint8).numpy()
        else:
            array = np.asarray(value)
        if array.dtype.hasobject:
            yield from self._each((array.shape, array.tolist()))
            return
        shape, kind = getattr(value, "shape", ()), getattr(value, "dtype", array.dtype)
        yield f"{tuple(shape)} {kind} {sha256(array.tobytes()).hexdigest()}"


def _name(value: Any) -> str:
    """Returns what values without an order are put in order by, the same in every process."""
    shown = repr(value)
    return getattr(value, "__qualname__", "") if " at 0x" in shown else shown


def _full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _compiled(compiled: CodeType) -> Iterator[str]:
    """Yields what code does, step by step, without the lines and files that it is from."""
    yield repr((compiled.co_argcount, compiled.co_kwonlyargcount, compiled.co_varnames))
    yield repr(compiled.co_flags & _KINDS)
    for step in dis.get_instructions(compiled):
        if isinstance(step.argval, CodeType):
            yield from _compiled(step.argval)
        elif isinstance(step.argval, frozenset):
            yield f"{step.opname} {sorted(map(repr, step.argval))}"
        else:
            yield f"{step.opname} {step.argval!r}"


def _globals_of(compiled: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(compiled):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in compiled.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant)


def _is_library(module: str) -> bool:
    """Returns whether a module goes by a version; what is typed in does not."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return module != "__main__" and is_installed(module, file)


def _module(name: str) -> list[str]:
    """Returns what a module is: its name and version; of one's own all code that it imports."""
    if _is_library(name):
        return [f"{name} {_versions(name.partition('.')[0])}"]
    return [f"{own}\n{code(content)}" for own, content in sorted(own_modules([name]).items())]


def _versions(package: str) -> list[str]:
    return sorted(version(name) for name in _distributions().get(package, []))


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()
