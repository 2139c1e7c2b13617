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
    "errors": 0, "seeding": 0, "config": 1, "files": 1, "machine": 1, "space": 2,
    "study": 3, "models": 3, "data": 4, "surgery": 4, "tasks": 5, "strategies": 5, "aims": 6,
    "refit": 6, "export": 7, "training": 8, "criteria": 8, "latency": 9,
    "search": 10, "run": 11, "report": 12, "api": 13, "cli": 14,
}  # fmt: skip


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
        if upper != lower and LEVELS[upper] <= LEVELS[lower]:
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


@pytest.mark.parametrize(
    "module", ["evosearch.strategies", "evosearch.study.study", "evosearch.cli"]
)
def test_imports_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
