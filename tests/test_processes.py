"""A fresh process imports from where this one does, and nothing from where it is started."""

import sys
from pathlib import Path

import pytest

from evosearch.errors import InputError
from evosearch.processes import ProcessError, is_first, require_alone, run_fresh, shared_by


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder to start in: with a file that hides a module, and one beside it."""
    (tmp_path / "random.py").write_text("raise ImportError('not this one')")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "own_module.py").write_text("import random, sys\nprint(sys.argv[1])")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_imports_from_where_this_one_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProcessError, match=r"No module named.*own_module"):
        run_fresh("-m", "own_module", "here", importing=True)
    monkeypatch.syspath_prepend(place / "src")
    assert run_fresh("-m", "own_module", "here", importing=True) == "here\n"
    with pytest.raises(ProcessError, match=r"No module named.*own_module"):
        run_fresh("-m", "own_module", "here", importing=False)


def test_the_working_directory_counts_where_this_process_looks_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Python's own modules, as there."""
    monkeypatch.setattr(sys, "path", [*sys.path, ""])
    (place / "beside.py").write_text("import random\nprint('found')")
    assert run_fresh("-m", "beside", importing=True) == "found\n"


def test_what_is_installed_alone(place: Path) -> None:
    code = "import random, numpy; print(bool(random.random))"
    assert run_fresh("-c", code, importing=False) == "True\n"


def test_its_last_word_is_the_reason() -> None:
    with pytest.raises(ProcessError, match=r"^ValueError: why$"):
        run_fresh("-c", "raise ValueError('why')", importing=False)
    with pytest.raises(ProcessError, match="without a reason"):
        run_fresh("-c", "import os; os._exit(3)", importing=False)


def test_only_torchrun_shares_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers of jobs set ranks as well, and each of their processes speaks for itself."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert shared_by() == 1
    assert is_first()
    require_alone("search")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert shared_by() == 2
    assert not is_first()
    with pytest.raises(InputError, match="search: 2 processes of torchrun would each do all"):
        require_alone("search")
