"""The real program, killed with SIGKILL at random moments and resumed, ends in the same study."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evosearch.study import STUDY_FILE, Study
from tests.test_cli import QUICK, evosearch
from tests.toys import comparable

TRIALS = 30
KILLS = 24


def start(cwd: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "EVOSEARCH_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "evosearch.cli", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def records(study: Path) -> int:
    return study.read_bytes().count(b"\n") if study.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["rates", "layerwise"])
def test_killed_runs_resume_to_the_uninterrupted_study(strategy: str, tmp_path: Path) -> None:
    """Kills while trials are written; each kill comes at a random moment of a random trial."""
    (tmp_path / "quick.toml").write_text(QUICK)
    search = ("search", "quick.toml", "--flops", "30%..70%", "--strategy", strategy)
    whole = evosearch(*search, "--trials", str(TRIALS), "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    begun = evosearch(*search, "--trials", "1", "--out", "killed", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr

    rng = random.Random(strategy)
    journal = tmp_path / "killed" / STUDY_FILE
    kills = 0
    while kills < KILLS // 2:
        at_start = records(journal)
        process = start(tmp_path, "resume", "killed", "--trials", str(TRIALS))
        target = at_start + rng.choice([0, 0, 1, 1, 2])
        while process.poll() is None and records(journal) < target:
            time.sleep(0.001)
        # From the moment of a record on: inside a write, inside an evaluation, inside start-up.
        time.sleep(rng.choice([0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if len(Study.open(tmp_path / "killed").trials) == TRIALS:
            break
    assert kills >= KILLS // 4
    done = evosearch("resume", "killed", "--trials", str(TRIALS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert comparable(Study.open(tmp_path / "killed").trials) == comparable(
        Study.open(tmp_path / "whole").trials
    )
