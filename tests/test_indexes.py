"""The docstring of a package is an index of its files."""

import ast
import re
from pathlib import Path

import pytest

import evosearch

ROOT = Path(evosearch.__file__).parent
PACKAGES = (
    "aims",
    "criteria",
    "data",
    "engine",
    "export",
    "latency",
    "models",
    "tasks",
    "training",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_files(package: str) -> None:
    index = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    assert index is not None
    listed = re.findall(r"^`(\w+)` +\S", index, re.MULTILINE)
    files = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert sorted(listed) == sorted(files)
