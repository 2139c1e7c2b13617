"""Callables that a user names in a file: found, imported, told apart by their code."""

import builtins
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions, version
from importlib.util import module_from_spec, spec_from_file_location
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Any

from evosearch.errors import InputError, unknown_name
from evosearch.objects import is_object, object_of
from evosearch.sourcecode import (
    CurrentCode,
    code,
    imports,
    is_installed,
    own_modules,
    require_unedited,
)

MOVED = {
    "evosearch.evaluation.models": "evosearch.models.zoo",
    "evosearch.evaluation.task": "evosearch.tasks.classification",
}
"""Modules that space files may still name as they were once called -> where that is now."""
COLLECTIONS = {"timm": "timm.models", "torchvision": "torchvision.models"}
"""Packages of networks -> the module that has their builders by name."""
_PRIVATE = "_evosearch_"
_IMPORTED: dict[str, ModuleType] = {}
"""The modules of files, by what they and the files that they import hold."""


def resolve_callable(reference: str, folder: Path, where: str) -> Callable[..., Any]:
    """Returns the callable that a space file names.

    A `file.py` is imported as it is now, with the files beside it that it imports: where one of
    them was edited since it was last named, it is a module of its own. Each takes the name that
    `import` gives it, so that what is pickled of it loads wherever it can be imported; where that
    name is something else's, the module has one that nothing can import, see
    `files_without_name`. Any other module of the user's own is the one that Python imported, and
    may not be edited after that.

    Args:
        reference: "module:callable", "file.py:callable", "torchvision:name", "timm:name", or
            "object:name" of what the call in progress was given.
        folder: where the space file lies, and a `file.py` beside it.
        where: the key that holds the reference, for messages.

    Raises:
        InputError: there is no such module, file or callable, importing it fails, or a module was
            edited since it was imported.
    """
    if is_object(reference):
        found: Callable[..., Any] = object_of(reference, where)
        return found
    return _named(reference, folder, where)[1]


def code_digest(reference: str, folder: Path, where: str) -> str:
    """Returns 32 hexadecimal digits for the code of a callable that a space file names.

    They change with its name and with any code of the user's own that it comes to import: of the
    file that it is in, of the files beside that one, of modules that are not installed. They do
    not change with comments, docstrings and layout, nor with where files lie. For a callable of
    an installed package they change with its full name, its module's code, and the package's
    version.

    Args:
        reference: as `resolve_callable`.
        folder: as `resolve_callable`.
        where: as `resolve_callable`.

    Raises:
        InputError: as `resolve_callable`.
    """
    module, _ = _named(reference, folder, where)
    source, _, name = reference.partition(":")
    file = Path(getattr(module, "__file__", None) or "")  # what is built into Python has none
    others: Mapping[str, bytes] = {}
    parts = []
    if source.endswith(".py"):
        beside = _sources(file, _content)
        others = own_modules(_elsewhere(beside))
        parts = [code(beside.pop(file))]
        parts += [f"{path.name}\n{code(beside[path])}" for path in sorted(beside)]
    elif is_installed(module.__name__, str(file)):
        packages = packages_distributions().get(module.__name__.partition(".")[0], [])
        parts = [f"{module.__name__} {sorted(version(package) for package in packages)}"]
        parts += [code(file.read_bytes())] if file.suffix == ".py" else []
    else:
        others = own_modules([module.__name__])
    parts += [f"{other}\n{code(others[other])}" for other in sorted(others)]
    return hashlib.sha256("\n".join([name, *parts]).encode()).hexdigest()[:32]


def files_without_name(objects: Iterable[object]) -> list[str]:
    """Returns the `file.py`s that define what is given and that `import` does not find by name.

    What is pickled of them loads in no other process.
    """
    modules = {type(item).__module__ for item in objects}
    private = sorted(name for name in modules if name.startswith(_PRIVATE))
    return [str(sys.modules[name].__file__) for name in private]


def one_line(error: Exception) -> str:
    """Returns what went wrong in someone else's code: the error's first line, and its type."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def _named(reference: str, folder: Path, where: str) -> tuple[ModuleType, Callable[..., Any]]:
    """Returns the module and the callable of a reference; see `resolve_callable`."""
    source, _, name = reference.partition(":")
    if not source or not name:
        raise InputError(f"{where} = {reference!r}: expected 'module:callable'")
    try:
        if source in COLLECTIONS:
            module = importlib.import_module(COLLECTIONS[source])
        elif source.endswith(".py"):
            module, beside = _import_file(folder / source)
            require_unedited(own_modules(_elsewhere(beside)))
        else:
            module = importlib.import_module(MOVED.get(source, source))
            require_unedited(own_modules([module.__name__]))
    except Exception as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        advice = f"; scripts/setup {absent} installs it" if absent in COLLECTIONS else ""
        raise InputError(
            f"{where} = {reference!r}: cannot import {source!r}: {one_line(error)}{advice}"
        ) from error
    found = getattr(module, name, None)
    if source == "torchvision" and name in module.list_models():
        found = module.get_model_builder(name)  # also of its submodules, such as detection
    if not callable(found):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError(f"{where}: {unknown_name(f'callable of {source}', name, public)}")
    return module, found


def _import_file(path: Path) -> tuple[ModuleType, dict[Path, bytes]]:
    """Returns the module of a file as it is now, and what `_sources` found.

    Of files of one name, those that were named last have it in `sys.modules`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    sources = _sources(path.absolute(), _content)
    module = _loaded(path.absolute(), sources)
    for at in sources:
        known = _IMPORTED.get(_key(at, sources))
        if known is not None and known.__name__ == at.stem and _is_free(at):
            sys.modules[at.stem] = known
    return module, sources


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sources(path: Path, read: Callable[[Path], bytes | None]) -> dict[Path, bytes]:
    """Returns the content of a file, and of each file beside it that it comes to import.

    Args:
        path: of the file.
        read: gives the content of a file, or none where there is no such file.
    """
    found: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        at = waiting.pop()
        content = None if at in found else read(at)
        if content is not None:
            found[at] = content
            waiting += [at.with_name(f"{name}.py") for name in imports(content, str(at))]
    return found


def _elsewhere(sources: Mapping[Path, bytes]) -> set[str]:
    """Returns the modules that files beside each other import by name, as `_importing` has it."""
    names = {name for path, content in sources.items() for name in imports(content, str(path))}
    beside = {path.stem for path in sources}
    return {
        name
        for name in names
        if name.partition(".")[0] not in beside and sys.modules.get(name) not in _IMPORTED.values()
    }


def _loaded(path: Path, sources: Mapping[Path, bytes]) -> ModuleType:
    """Returns a file as a module, which imports the files beside it as they were read.

    No edit is missed, and those who import the same file get the same module.

    Args:
        path: of the file.
        sources: content of it, and of all that it comes to import from beside it.
    """
    key = _key(path, sources)
    if key in _IMPORTED:
        return _IMPORTED[key]
    name = path.stem if _is_free(path) else f"{_PRIVATE}{path.stem}_{key}"
    loader = CurrentCode(name, path, sources[path])
    spec = spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # as there is a loader
    module = module_from_spec(spec)
    # What code imports by is `__import__` of the builtins that it is run with; see `exec`.
    find = _importing(_sources(path, sources.get))
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": find}
    before = sys.modules.get(name)
    sys.modules[name] = _IMPORTED[key] = module  # the code itself may look there
    try:
        loader.exec_module(module)
    except BaseException:
        del _IMPORTED[key], sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _key(path: Path, sources: Mapping[Path, bytes]) -> str:
    """Returns what tells a file from all others: a digest of what it and those it imports hold."""
    own = _sources(path, sources.get)
    contents = (f"{at.resolve()}\n".encode() + own[at] for at in (path, *sorted(own)))
    return hashlib.sha256(b"\n".join(contents)).hexdigest()[:12]


def _importing(sources: Mapping[Path, bytes]) -> Callable[..., ModuleType]:
    """Returns what takes the place of `__import__` in files that import each other.

    Files of another folder that have their name in `sys.modules` are not found by it.
    """
    files = {path.stem: path for path in sources}

    def find(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and name in files:
            return _loaded(files[name], sources)
        if level == 0 and sys.modules.get(name) in _IMPORTED.values():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return builtins.__import__(name, globals, locals, fromlist, level)

    return find


def _is_free(path: Path) -> bool:
    """Returns whether `import` finds nothing else than a file under the file's name."""
    name = path.stem
    if not name.isidentifier() or iskeyword(name):
        return False
    if name in sys.modules:
        holder = sys.modules[name]
        return holder in _IMPORTED.values() or _same_file(getattr(holder, "__file__", None), path)
    spec = PathFinder.find_spec(name)
    found = None if spec is None else spec.origin  # none for a folder, which a file goes before
    return name not in sys.stdlib_module_names and (found is None or _same_file(found, path))


def _same_file(found: str | None, path: Path) -> bool:
    return found is not None and Path(found).resolve() == path.resolve()
