"""Imports go down only, and strategies never see torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evosearch

ROOT = Path(evosearch.__file__).parent
LEVELS = {
    "errors": 0, "seeding": 0, "mask": 0, "cost": 0, "costform": 0, "space": 0, "trial": 0,
    "front": 0, "knowledge": 0, "config": 0, "files": 0, "spacetext": 0, "scores": 0, "records": 0,
    "scorestore": 0, "runlog": 0, "trust": 0, "latencymodel": 0, "certificate": 0,
    "card": 0,
    "strategies": 1, "surgery": 1, "evaluation": 1,
    "study": 2, "parallel": 2, "controller": 2, "artifact": 2,
    "run": 3, "runconfig": 3, "machine": 3, "preparation": 3, "ladder": 3, "planning": 3,
    "loop": 3, "measuring": 3, "rivals": 3, "baselining": 3, "finetuning": 3, "exporting": 3,
    "latency": 3, "timedfront": 3, "freshtiming": 3, "measurements": 3,
    "reopening": 3,
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


@pytest.mark.parametrize("level", FAMILIES)
def test_a_level_has_no_cycles(level: int) -> None:
    edges = {
        (part_of(a), part_of(b))
        for a, b in imports()
        if a != "evosearch.__init__" and LEVELS[part_of(a)] == level and part_of(a) != part_of(b)
    }
    remaining = {name for name, own in LEVELS.items() if own == level}
    while remaining:
        leaves = {n for n in remaining if not any(a == n and b in remaining for a, b in edges)}
        assert leaves, f"a cycle among {sorted(remaining)}"
        remaining -= leaves


@pytest.mark.parametrize("module", ["evosearch.strategies", "evosearch.study", "evosearch.cli"])
def test_imports_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
