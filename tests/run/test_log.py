"""The log of a run: one line for each event, a file for each run, never the end of a search."""

import logging
import re
from pathlib import Path

import pytest

from evosearch.files import StorageError
from evosearch.run.folder import RunFolder
from evosearch.run.log import RunLog
from tests.harm.places import fill, tmpfs
from tests.run.test_session import go


def test_a_line_has_time_level_event_and_values(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.event("start", strategy="rates", note='a "b" = c\nd', none="")
    log.event("trouble", logging.WARNING)
    log.close()
    first, second = RunFolder(tmp_path).log.read_text().splitlines()
    time = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    assert re.fullmatch(
        time + r' INFO start strategy=rates note="a \\"b\\" = c\\nd" none=""', first
    )
    assert re.fullmatch(time + " WARNING trouble", second)


def test_two_runs_of_one_process_have_a_file_each_and_append(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    logs = [RunLog(tmp_path / "a"), RunLog(tmp_path / "b"), RunLog(tmp_path / "a")]
    for number, log in enumerate(logs):
        log.event(f"event{number}")
        log.close()
    first, second = (RunFolder(tmp_path / name).log for name in ("a", "b"))
    assert [line.split()[2] for line in first.read_text().splitlines()] == ["event0", "event2"]
    assert len(second.read_text().splitlines()) == 1


def test_programs_that_listen_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(tmp_path)
    log.event("start", seed=3)
    log.close()
    assert [(r.name, r.getMessage()) for r in caplog.records] == [
        ("evosearch.run", "start seed=3")
    ]


def test_trials_are_lines_and_failures_are_warnings(tmp_path: Path) -> None:
    _, study = go(tmp_path / "run", "random", 40)
    log = RunLog(tmp_path)
    for trial in study.trials:
        log.trial(trial)
    log.close()
    lines = RunFolder(tmp_path).log.read_text().splitlines()
    assert len(lines) == 40
    for trial, line in zip(study.trials, lines, strict=True):
        assert f"trial number={trial.number} " in line
        assert f"state={trial.state.value}" in line
        failed = trial.error is not None and trial.duplicate_of is None
        assert (" WARNING " in line) == failed
        assert (f'error="{trial.error}"' in line) == (trial.error is not None)


def test_a_full_disk_drops_lines_and_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"run\.log: cannot be written \(No such file"):
        RunLog(tmp_path / "none")
    with tmpfs(tmp_path / "disk") as disk:
        log = RunLog(disk)
        fill(disk)
        for _ in range(100):
            log.event("trial", note="x" * 100)
        log.close()
