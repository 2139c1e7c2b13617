"""The example scripts run as they are, on few trials."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.toyrun import toy_run
from tests.toys import toy_knowledge

EXAMPLES = Path(__file__).parent.parent / "scripts" / "examples"
Example = Callable[..., str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first example that trains the digits' base network leaves it for the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def example(tmp_path: Path, cache: Path) -> Example:
    def run(name: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                "EVOSEARCH_CACHE": str(cache),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text] == []


def test_search_flops(example: Example, tmp_path: Path) -> None:
    out = example("search_flops.py", "--trials", "4", "--epochs", "1", "--out", tmp_path / "run")
    assert "% of the FLOPs, search accuracy" in out
    assert "distilled 1 epochs: test accuracy" in out


def test_resume(example: Example, tmp_path: Path) -> None:
    out = example("resume.py", "--trials", "9", "--out", tmp_path / "run")
    assert "stopped after 3 trials" in out
    assert "went on to 6 trials" in out
    assert "at 25 % of the FLOPs: best loss" in out


def test_inspect_front(example: Example, tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 24)
    toy_knowledge().save(tmp_path / "run" / "knowledge.npz")
    out = example("inspect_front.py", tmp_path / "run")
    assert "(knee): loss" in out
    assert "at 45 % of the FLOPs:" in out
    assert "24 trials; slowest" in out


def test_own_model(example: Example, tmp_path: Path) -> None:
    out = example("own_model.py", "--trials", "4", "--out", tmp_path / "run")
    assert "stem.0: keeps" in out
    assert "test accuracy" in out


@pytest.mark.slow
def test_search_latency(example: Example, tmp_path: Path) -> None:
    out = example(
        "search_latency.py", "--latency", "90%", "--batch", "8", "--trials", "4",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert "latency budget of 90.0% of the base network's" in out
