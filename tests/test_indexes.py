"""The docstring of a package is an index of its files."""

import ast
import re
from pathlib import Path

import pytest

import evosearch

ROOT = Path(evosearch.__file__).parent
PACKAGES = [
    ".".join(path.parent.relative_to(ROOT).parts) for path in sorted(ROOT.rglob("__init__.py"))
]


@pytest.mark.parametrize("package", [package for package in PACKAGES if package])
def test_a_package_lists_its_files(package: str) -> None:
    folder = ROOT / package.replace(".", "/")
    index = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert index is not None
    listed = re.findall(r"^`(\w+)` +\S", index, re.MULTILINE)
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    inner = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert sorted(listed) == sorted(files | inner)
