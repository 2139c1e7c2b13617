"""Ctrl-C reaches the workers too, and must not end their measurements."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from evosearch.study.study import Study
from tests.run.test_session import go
from tests.toys import comparable

ROOT = Path(__file__).parent.parent.parent


def test_an_interrupt_of_all_processes_stops_after_a_measurement(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.harm.interrupted", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.strip() == "3":
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read().split()
        assert rest[-1] == "STOPPED", process.stderr.read()
    assert process.returncode == 0
    found = Study.open(tmp_path).trials
    assert all(trial.error in (None, "EvaluationError: the loss is not finite") for trial in found)
    _, whole = go(tmp_path / "whole", "random", len(found))
    assert comparable(found) == comparable(whole.trials)
