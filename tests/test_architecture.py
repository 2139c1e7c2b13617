"""Imports go down only, from package to package; what says that it needs no torch imports none."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import evosearch

ROOT = Path(evosearch.__file__).parent
RANKS = (
    ("errors",),
    ("seeding", "sourcecode", "processes", "objects"),
    ("config", "files", "machine", "memory", "callables", "livecode", "stages", "calling"),
    ("space",),
    ("study", "models", "data"),
    ("surgery", "tasks", "strategies", "aims"),
    ("refit", "export"),
    ("training", "criteria", "latency"),
    ("engine",),
    ("run",),
    ("report",),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A part imports parts of lower ranks, and none of its own rank."""
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}
WITHOUT_TORCH = ("space", "study", "strategies", "aims", "cli")
"""Packages of which no module imports torch, directly or not, when it is imported."""
CLAIM = "without torch"
"""What the docstring of any other module says that keeps to the same."""
LONGEST = 300
"""Lines of a file that has one responsibility, at most."""


def sources() -> dict[str, Path]:
    """Returns every module of the package, by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT.parent).with_suffix("")
        found[".".join(relative.parts).removesuffix(".__init__")] = path
    return found


def part_of(module: str) -> str:
    return module.split(".")[1]


def imports() -> list[tuple[str, str]]:
    """Returns pairs of modules, of which the first imports the second, also for types alone."""
    modules = sources()
    found = []
    for importer, path in modules.items():
        if importer == "evosearch":  # the public names, which it imports when they are asked for
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in modules else node.module for name in inner]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found += [(importer, name) for name in names if name.startswith("evosearch.")]
    return found


def test_every_part_has_a_rank() -> None:
    parts = {path.stem for path in ROOT.glob("*.py")} | {
        p.name for p in ROOT.iterdir() if p.is_dir()
    }
    assert parts - {"__init__", "__pycache__"} == set(RANK)


def test_imports_go_down_only() -> None:
    wrong = [
        f"{importer} imports {imported}"
        for importer, imported in imports()
        if part_of(importer) != part_of(imported)
        and RANK[part_of(importer)] <= RANK[part_of(imported)]
    ]
    assert wrong == []


def test_no_import_closes_a_circle() -> None:
    modules: dict[str, set[str]] = {}
    for importer, imported in imports():
        if importer != imported:
            modules.setdefault(importer, set()).add(imported)
    TopologicalSorter(modules).prepare()  # raises CycleError, which names the circle


def test_no_file_is_longer_than_one_responsibility() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in sources().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def claiming() -> list[str]:
    """Returns the modules that must be imported without torch."""
    return [
        name
        for name, path in sources().items()
        if (name != "evosearch" and part_of(name) in WITHOUT_TORCH)
        or CLAIM in (ast.get_docstring(ast.parse(path.read_text())) or "")
    ]


@pytest.mark.parametrize("part", WITHOUT_TORCH)
def test_imports_without_torch(part: str) -> None:
    own = [name for name in claiming() if part_of(name) == part]
    assert own
    _require_no_torch(own)


def test_what_claims_to_need_no_torch_imports_none() -> None:
    others = [name for name in claiming() if part_of(name) not in WITHOUT_TORCH]
    assert any(part_of(name) == "report" for name in others)
    _require_no_torch(others)


def _require_no_torch(modules: list[str]) -> None:
    """Imports modules one after the other in a fresh process, and looks for torch after each."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(name + ' imports torch')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
