"""The steps of `evosearch/export/README.md`, followed as they are written."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from evosearch.errors import EvosearchError
from evosearch.export import formats
from evosearch.export.builder import named_builder
from evosearch.export.formats import FORMATS
from tests.export.test_formats import DIGITS, artifact
from tests.readmes import ROOT, code_blocks, edited

TABLE = "FORMATS: dict[str, Format] = {\n"


def test_a_format(tmp_path: Path) -> None:
    function, row = code_blocks("export", "python")
    shipped = edited(formats, (TABLE, f"{function}\n\n{TABLE}{row}"))
    assert list(shipped.FORMATS) == ["core", *FORMATS]

    saved = artifact(tmp_path, DIGITS)
    done = shipped.export_network(saved, "core", tmp_path / "out", named_builder(saved, Path()))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"core.pt2", "check.npz", "card.json", "README.md"}
    card = json.loads((tmp_path / "out" / "card.json").read_text())["export"]
    assert (card["format"], card["largest_difference"]) == ("core", done)
    assert shipped.verify(tmp_path / "out")[0] == done < 1e-4 * max(1.0, card["largest_output"])


def test_a_format_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    function, row = code_blocks("export", "python")
    doubled = row.replace(".detach().numpy()", ".detach().numpy() * 2")
    shipped = edited(formats, (TABLE, f"{function}\n\n{TABLE}{doubled}"))
    saved = artifact(tmp_path, DIGITS)
    with pytest.raises(EvosearchError, match="outputs differ"):
        shipped.export_network(saved, "core", tmp_path / "out", named_builder(saved, Path()))
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_the_readme_lists_every_format() -> None:
    text = (ROOT / "export" / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", text, re.MULTILINE)
    assert dict(rows) == {name: row.file for name, row in FORMATS.items()}


def test_an_extra_of_its_name_installs_what_a_format_needs() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    for name, row in FORMATS.items():
        if row.packages:
            extra = {
                re.split(r"[>=<]", need)[0] for need in project["optional-dependencies"][name]
            }
            assert set(row.packages) <= extra
