"""Source code that is a user's own: what it says, which modules it imports, and their edits.

Python imports a module once in a process, and runs it as it was then. So what its file says is
what runs only as long as nobody edits it; see `require_unedited`.
"""

import ast
import hashlib
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType
from typing import final

from evosearch.errors import InputError

_LIBRARIES = ("site-packages", "dist-packages")


@lru_cache(maxsize=1024)
def code(source: bytes) -> str:
    """Returns code as Python reads it: without comments, docstrings and layout.

    Raises:
        SyntaxError: it is no code.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@lru_cache(maxsize=1024)
def imports(source: bytes, path: str, package: str = "") -> frozenset[str]:
    """Returns the modules that code imports, anywhere in it, but for those of Python itself.

    Of `from a import b`, which may mean the module `a.b`, there are both.

    Args:
        source: of the code.
        path: of its file, for messages.
        package: that relative imports start from; they are left out without one.

    Raises:
        SyntaxError: it is no code.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(n for n in names if n.partition(".")[0] not in sys.stdlib_module_names)


def is_installed(module: str, file: str) -> bool:
    """Returns whether code goes by a version: Python's, evosearch's, or that of a package."""
    package = module.partition(".")[0]
    known = package == "evosearch" or package in sys.stdlib_module_names
    installed = any(part in _LIBRARIES for part in Path(file).parts)
    return known or installed or not file.endswith(".py")


def own_modules(names: Collection[str]) -> dict[str, bytes]:
    """Returns the source of modules, and of all that they come to import, by name.

    Those that are installed, or not to be found, are left out. Nothing is imported.

    Args:
        names: of modules as Python imports them.

    Raises:
        SyntaxError: one of them is no code.
    """
    found: dict[str, bytes] = {}
    done: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        package, _, _ = name.rpartition(".")
        waiting += [package] if package else []  # which is imported first
        spec = _spec(name)
        path = Path((spec and spec.origin) or "")
        if spec is None or is_installed(name, str(path)) or not path.is_file():
            continue
        found[name] = path.read_bytes()
        waiting += imports(found[name], str(path), spec.parent or "")
    return found


@final
class CurrentCode(SourceFileLoader):
    """Compiles the bytes that it is given, and keeps nothing.

    Compiled files go by the time of change in whole seconds and the size, which an edit may leave
    as they were.

    Attributes:
        source: the bytes.
    """

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        """Takes the name that the module gets, and its file."""
        super().__init__(name, str(path))
        self.source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        """Returns the module's code."""
        compiled: CodeType = self.source_to_code(self.source, self.path)
        return compiled


@final
@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A module as it was seen: as imported (None: it was not), and the digest of its code."""

    imported: ModuleSpec | None
    digest: str


_SEEN: dict[str, _Seen] = {}


def require_unedited(sources: Mapping[str, bytes]) -> None:
    """Checks that modules are still what they were when they were seen first.

    One that was imported anew, by `importlib.reload` for example, is another one.

    Args:
        sources: of modules by name, as they are now.

    Raises:
        InputError: one was edited since it was imported; names its file.
    """
    for name, source in sources.items():
        spec = getattr(sys.modules.get(name), "__spec__", None)
        now = _Seen(imported=spec, digest=_digest(source))
        seen = _SEEN.get(name, now)
        if spec is not None and isinstance(spec.loader, CurrentCode):
            seen = _Seen(imported=spec, digest=_digest(spec.loader.source))
        # One that was not imported when it was seen may have been imported before its edit.
        another = seen.imported is not None and seen.imported is not spec
        if spec is not None and not another and seen.digest != now.digest:
            raise InputError(
                f"{spec.origin} was edited since it was imported; start a new process (in a"
                " notebook: restart the kernel), so that what runs is what the file says"
            )
        _SEEN[name] = now


def _digest(source: bytes) -> str:
    return hashlib.sha256(code(source).encode()).hexdigest()


def _spec(name: str) -> ModuleSpec | None:
    """Returns where a module is, or would be, imported from; None where that is nowhere."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    package, _, _ = name.rpartition(".")
    if not package:
        return PathFinder.find_spec(name)
    above = _spec(package)
    if above is None or above.submodule_search_locations is None:
        return None
    try:
        return PathFinder.find_spec(name, above.submodule_search_locations)
    except KeyError:  # a folder without `__init__.py`, in a package that is not imported
        folders = [
            Path(place, name.rpartition(".")[2]) for place in above.submodule_search_locations
        ]
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        return spec
