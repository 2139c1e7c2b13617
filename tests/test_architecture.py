"""Imports go down only, and strategies never see torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import evosearch

ROOT = Path(evosearch.__file__).parent
LEVELS = {
    "errors": 0, "seeding": 0, "mask": 0, "cost": 0, "costform": 0, "space": 0, "trial": 0,
    "front": 0, "knowledge": 0, "config": 0, "files": 0, "spacetext": 0, "scores": 0, "records": 0,
    "latencymodel": 0, "certificate": 0, "card": 0,
    "strategies": 1, "surgery": 1, "evaluation": 1,
    "study": 2, "parallel": 2, "artifact": 2, "machine": 2,
    "run": 3, "runconfig": 3, "exporting": 3, "latency": 3,
    "cli": 4, "report": 4, "api": 4,
}  # fmt: skip
SIDEWAYS = {("evaluation", "surgery")}
"""Parts of one level, of which the first may import the second."""
FAMILIES = (0, 3, 4)
"""Levels whose parts may import one another."""


def part_of(module: str) -> str:
    return module.split(".")[1]


def imports() -> list[tuple[str, str]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT.parent).with_suffix("")
        importer = ".".join(relative.parts)
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found += [(importer, name) for name in names if name.startswith("evosearch.")]
    return found


def test_every_part_has_a_level() -> None:
    parts = {path.stem for path in ROOT.glob("*.py")} | {
        p.name for p in ROOT.iterdir() if p.is_dir()
    }
    assert parts - {"__init__", "__pycache__"} == set(LEVELS)


def test_imports_go_down_only() -> None:
    wrong = []
    for importer, imported in imports():
        if importer == "evosearch.__init__":
            continue
        upper, lower = part_of(importer), part_of(imported)
        allowed = (
            upper == lower
            or LEVELS[upper] > LEVELS[lower]
            or (upper, lower) in SIDEWAYS
            or LEVELS[upper] == LEVELS[lower] in FAMILIES
        )
        if not allowed:
            wrong.append(f"{importer} imports {imported}")
    assert wrong == []


def test_no_import_closes_a_circle() -> None:
    parts: dict[str, set[str]] = {}
    modules: dict[str, set[str]] = {}
    for importer, imported in imports():
        if importer == "evosearch.__init__":
            continue
        modules.setdefault(importer, set()).add(imported)
        if part_of(importer) != part_of(imported):
            parts.setdefault(part_of(importer), set()).add(part_of(imported))
    for graph in (parts, modules):
        TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", ["evosearch.strategies", "evosearch.study", "evosearch.cli"])
def test_imports_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
