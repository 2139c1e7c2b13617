"""The names of a run's files: each stands in one place of the source."""

import ast
from pathlib import Path

import pytest

import evosearch
from evosearch.api.searching import next_folder
from evosearch.run.folder import RunFolder, _Place

ROOT = Path(evosearch.__file__).parent
OWNERS = (
    "run/folder.py",
    "study/study.py",
    "study/certificate.py",
    "study/rungtimes.py",
    "study/scorestore.py",
)
PLACES = [name for name, value in vars(RunFolder).items() if isinstance(value, _Place)]


def test_places_lie_in_the_folder_each_in_one_of_its_own() -> None:
    folder = RunFolder(Path("runs/a"))
    paths = [getattr(folder, name) for name in PLACES]
    assert len(PLACES) == 22
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {Path("runs/a")}
    assert folder.config == Path("runs/a/config.toml")
    assert folder.artifact("trial 3") == Path("runs/a/artifacts/trial-3")
    assert folder.progress("plan 0123abcd") == Path("runs/a/plan-0123abcd.progress")
    assert folder.finalist("0a1b", "trial 3") == folder.finals / "0a1b" / "trial-3.progress"
    assert folder.baseline("random") == Path("runs/a/baselines/random")


def test_a_run_may_begin_where_there_is_nothing_but_a_log(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    assert folder.is_free
    assert next_folder(tmp_path, "run") == folder.path
    folder.path.mkdir()
    assert not folder.is_free  # somebody else's
    folder.log.touch()
    assert folder.is_free
    assert next_folder(tmp_path, "run") == folder.path
    folder.config.touch()
    assert not folder.is_free
    assert next_folder(tmp_path, "run") == tmp_path / "run-2"
    folder.path.with_name("run-2").touch()
    assert not RunFolder(tmp_path / "run-2").is_free


@pytest.mark.parametrize(
    "path", [p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).as_posix() not in OWNERS]
)
def test_no_other_file_types_a_name(path: Path) -> None:
    names = {getattr(RunFolder(Path()), name).name for name in PLACES}
    typed = {name for name in names if "." in name} | {"artifacts/", ".progress"}
    tree = ast.parse(path.read_text())
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
        and any(node.value == name or node.value.startswith(name) for name in typed)
    }
    assert found == set()
