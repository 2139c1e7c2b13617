"""Harm to the real program: what it says, how it exits, and that the study comes out the same."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from evosearch.run.lock import RunLock
from evosearch.space.knowledge import Knowledge
from evosearch.study.study import STUDY_FILE, Study
from tests.harm.places import fill, read_only, tmpfs
from tests.test_cli import QUICK, InProcess, evosearch, is_progress
from tests.toys import comparable

TRIALS = 14


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(monkeypatch, capfd)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of six trials, and the same one gone on with."""
    folder = tmp_path_factory.mktemp("harm")
    (folder / "quick.toml").write_text(QUICK)
    search = ("search", "quick.toml", "--flops", "30%..70%", "--strategy", "layerwise")
    begun = evosearch(*search, "--trials", "6", "--out", "run", cwd=folder)
    assert begun.returncode == 0, begun.stderr
    shutil.copytree(folder / "run", folder / "whole")
    gone_on = evosearch("resume", "whole", "--trials", str(TRIALS), cwd=folder)
    assert gone_on.returncode == 0, gone_on.stderr
    return folder


def trials(folder: Path) -> list[tuple[object, ...]]:
    return comparable(Study.open(folder).trials)


def one_line(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if not is_progress(line)]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("evosearch: ")
    return lines[0]


def test_what_is_derived_is_made_again(place: Path, tmp_path: Path, run: InProcess) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(place / "run", bare)
    for name in ("knowledge.npz", "scores", "run.log", "environment.json", "lock"):
        path = bare / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shown = run("pareto", bare, "--at", "flops=50%", cwd=place)
    assert shown.returncode == 2
    assert "knowledge.npz: no such file; evosearch resume measures it again" in shown.stderr
    done = run("resume", bare, "--trials", str(TRIALS), cwd=place)
    assert done.returncode == 0, done.stderr
    assert trials(bare) == trials(place / "whole")
    made, before = (Knowledge.load(f / "knowledge.npz") for f in (bare, place / "run"))
    for pair, block in before.gram.items():
        np.testing.assert_array_equal(made.gram[pair], block)
    for group, curve in before.sensitivity.items():
        np.testing.assert_array_equal(made.sensitivity[group].loss_increase, curve.loss_increase)


def test_damaged_knowledge_is_measured_again(place: Path, tmp_path: Path, run: InProcess) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "knowledge.npz"
    path.write_bytes(path.read_bytes()[:1000])
    done = run("resume", tmp_path / "run", "--trials", "8", cwd=place)
    assert done.returncode == 0, done.stderr
    assert trials(tmp_path / "run") == trials(place / "whole")[:8]


def test_an_edited_config_is_refused_with_what_changed(
    place: Path, tmp_path: Path, run: InProcess
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    text = path.read_text().replace("seed = 0\nthreads = 1", "seed = 1\nthreads = 1", 1)
    path.write_text(text.replace("epochs = 3", "epochs = 4", 1))
    done = run("resume", tmp_path / "run", "--trials", "8", cwd=place)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert "config.toml: edited since the run began, or from another run or version" in line
    assert "search.seed was 0, is 1" in line
    assert "space.train.epochs was 3, is 4" in line
    path.write_text("[search\n")
    assert "malformed TOML" in one_line(run("resume", tmp_path / "run", cwd=place).stderr)


def test_a_study_of_another_space_is_refused(place: Path, tmp_path: Path, run: InProcess) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / STUDY_FILE
    digest = Study.open(tmp_path / "run").header.space_digest
    path.write_text(path.read_text().replace(digest, "0" * len(digest)))
    done = run("resume", tmp_path / "run", "--trials", "8", cwd=place)
    assert done.returncode == 2
    assert "is no longer the one that this run began with" in one_line(done.stderr)


def test_a_second_process_is_refused_and_changes_nothing(place: Path, run: InProcess) -> None:
    lock = RunLock(place / "run")
    before = {p: p.read_bytes() for p in (place / "run").rglob("*") if p.is_file()}
    for command in (["resume", "run", "--trials", "8"], ["finetune", "run", "--pick", "best"]):
        done = run(*command, cwd=place)
        assert done.returncode == 2
        assert re.search(r"in use by pid \d+ on \S+ since 20\S+;", one_line(done.stderr))
    assert {p: p.read_bytes() for p in (place / "run").rglob("*") if p.is_file()} == before
    lock.release()


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    place: Path, tmp_path: Path, run: InProcess
) -> None:
    with tmpfs(tmp_path / "disk", "4m") as disk:
        shutil.copytree(place / "run", disk / "run")
        filler = fill(disk, but=20_000)
        done = run("resume", disk / "run", "--trials", str(TRIALS), cwd=place)
        assert done.returncode == 1
        assert "No space left on device" in one_line(done.stderr)
        kept = trials(disk / "run")
        assert 6 <= len(kept) < TRIALS
        new = ("search", "quick.toml", "--flops", "50%", "--trials", "1", "--out", disk / "new")
        done = run(*new, cwd=place)
        assert done.returncode == 2
        assert "No space left on device" in one_line(done.stderr)
        assert {path.name for path in disk.iterdir()} == {"run", "filler"}
        filler.unlink()
        done = run("resume", disk / "run", "--trials", str(TRIALS), cwd=place)
        assert done.returncode == 0, done.stderr
        assert trials(disk / "run") == trials(place / "whole")


def test_a_run_that_cannot_be_written_to_is_one_line(
    place: Path, tmp_path: Path, run: InProcess
) -> None:
    with tmpfs(tmp_path / "disk", "4m") as disk:
        shutil.copytree(place / "run", disk / "run")
        with read_only(disk):
            assert run("pareto", disk / "run", cwd=place).returncode == 0
            for command in ("resume", "finetune"):
                done = run(command, disk / "run", cwd=place)
                assert done.returncode == 1
                assert "Read-only file system" in one_line(done.stderr)
            new = ("search", "quick.toml", "--flops", "50%", "--out", disk / "new")
            done = run(*new, cwd=place)
            assert done.returncode == 2
            assert "Read-only file system" in one_line(done.stderr)


def test_another_machine_is_warned_of(
    place: Path, tmp_path: Path, run: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    environment = json.loads(path.read_text())
    assert environment["threads"] == 1
    assert environment["cpu_flags"] or environment["processor"]
    path.write_text(json.dumps({**environment, "torch": "1.0", "cpu_capability": "NONE"}))
    done = run("resume", tmp_path / "run", "--trials", "7", cwd=place)
    assert done.returncode == 0
    assert "results can differ" in caplog.text
    assert f"torch was 1.0, is {environment['torch']}" in caplog.text
    log = (tmp_path / "run" / "run.log").read_text()
    assert 'INFO environment changes="' in log
    assert f"torch was 1.0, is {environment['torch']}" in log


def test_the_log_of_a_run_tells_its_sessions(place: Path) -> None:
    lines = (place / "whole" / "run.log").read_text().splitlines()
    time = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    assert all(re.match(rf"{time} (INFO|WARNING) \w+", line) for line in lines)
    events = [line.split()[2] for line in lines]
    assert events[:3] == ["start", "note", "search"]
    assert events.count("trial") == TRIALS
    assert events[-1] == "end"
    assert "resume" in events
    assert 'outcome="all trials are done"' in lines[-1]
