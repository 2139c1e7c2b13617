"""Searches killed with SIGKILL at random moments and resumed end in the same study.

`scripts/torture` does the same at length, and with every strategy.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evosearch.study.study import STUDY_FILE, Study
from tests.test_cli import QUICK, evosearch
from tests.toys import comparable

TRIALS = 30
KILLS = 15
ROOT = Path(__file__).parent.parent


def start(cwd: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "EVOSEARCH_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "evosearch.cli", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def records(study: Path) -> int:
    return study.read_bytes().count(b"\n") if study.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "workers"), [("rates", 1), ("layerwise", 2)])
def test_killed_runs_resume_to_the_uninterrupted_study(
    strategy: str, workers: int, tmp_path: Path
) -> None:
    """Kills while trials are written; each kill comes at a random moment of a random trial."""
    (tmp_path / "quick.toml").write_text(QUICK)
    search = ("search", "quick.toml", "--flops", "30%..70%", "--strategy", strategy)
    whole = evosearch(*search, "--trials", str(TRIALS), "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    expected = comparable(Study.open(tmp_path / "whole").trials)

    rng = random.Random(strategy)
    kills = studies = 0
    while kills < KILLS:
        name = f"killed-{studies}"
        studies += 1
        begun = evosearch(*search, "--trials", "1", "--out", name, cwd=tmp_path)
        assert begun.returncode == 0, begun.stderr
        resume = ("resume", name, "--trials", str(TRIALS), "--workers", str(workers))
        journal = tmp_path / name / STUDY_FILE
        while kills < KILLS and len(Study.open(tmp_path / name).trials) < TRIALS:
            target = records(journal) + rng.choice([0, 1, 1, 2, 5])
            process = start(tmp_path, *resume)
            while process.poll() is None and records(journal) < target:
                time.sleep(0.001)
            # From the moment of a record on: inside a write, an evaluation, or start-up.
            time.sleep(rng.choice([0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
        done = evosearch(*resume, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert comparable(Study.open(tmp_path / name).trials) == expected
    assert kills == KILLS


@pytest.mark.slow
def test_the_torture_script_finds_equal_studies(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "torture.py", "--kills", "80", "--real", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    last = [line for line in done.stdout.splitlines() if line.startswith("| all")]
    cells = [int(cell) for cell in last[0].split("|")[4:9]]
    kills, torn, beginnings, studies, equal = cells
    assert kills == beginnings == 80
    assert torn > 0
    assert studies == equal
