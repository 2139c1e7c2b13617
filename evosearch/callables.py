"""Callables that a user names in a file: found, imported, and their errors in one line."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from evosearch.errors import InputError, unknown_name

MOVED = {
    "evosearch.evaluation.models": "evosearch.models.zoo",
    "evosearch.evaluation.task": "evosearch.tasks.classification",
}
"""Modules that space files may still name as they were once called -> where that is now."""


def resolve_callable(reference: str, folder: Path, where: str) -> Callable[..., Any]:
    """Returns the callable that a space file names.

    Args:
        reference: "module:callable", "file.py:callable" or "torchvision:name".
        folder: where the space file lies, and a `file.py` beside it.
        where: the key that holds the reference, for messages.

    Raises:
        InputError: there is no such module, file or callable, or importing it fails.
    """
    source, _, name = reference.partition(":")
    if not source or not name:
        raise InputError(f"{where} = {reference!r}: expected 'module:callable'")
    try:
        if source == "torchvision":
            module = importlib.import_module("torchvision.models")
        elif source.endswith(".py"):
            module = _import_file(folder / source)
        else:
            module = importlib.import_module(MOVED.get(source, source))
    except Exception as error:
        raise InputError(
            f"{where} = {reference!r}: cannot import {source!r}: {one_line(error)}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError(f"{where}: {unknown_name(f'callable of {source}', name, public)}")
    return found  # type: ignore[no-any-return]


def one_line(error: Exception) -> str:
    """Returns what went wrong in someone else's code: the error's first line, and its type."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _import_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"_evosearch_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
