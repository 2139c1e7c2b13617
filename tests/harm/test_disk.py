"""Harm to the files of a run: recovered without losing a finished trial, or one clear line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evosearch.errors import EvosearchError, InputError
from evosearch.files import StorageError
from evosearch.run.lock import RunLock
from evosearch.study.scores import ImageScores
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import STUDY_FILE, Study
from tests.harm.places import fill, read_only, tmpfs
from tests.run.test_session import SPACE, go
from tests.toys import ToyEvaluator, comparable


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_study_cut_in_its_middle_goes_on_from_its_last_whole_trial(
    share: float, tmp_path: Path
) -> None:
    _, whole = go(tmp_path / "whole", "genetic", 60)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    path = tmp_path / "cut" / STUDY_FILE
    os.truncate(path, int(share * path.stat().st_size))
    kept = len(Study.open(tmp_path / "cut").trials)
    assert 0 < kept < 60
    evaluator = ToyEvaluator()
    _, again = go(tmp_path / "cut", "genetic", 60, evaluator=evaluator)
    assert comparable(again.trials) == comparable(whole.trials)
    assert len(evaluator.asked) <= 60 - kept


def test_a_study_without_its_header_is_one_clear_line(tmp_path: Path) -> None:
    go(tmp_path / "run", "random", 5)
    path = tmp_path / "run" / STUDY_FILE
    os.truncate(path, path.read_bytes().index(b"\n") + 30)
    with pytest.raises(InputError, match=r"study\.log: .*cut short before its first trial"):
        Study.open_for_appending(tmp_path / "run")


def test_a_damaged_record_inside_a_study_is_named_by_its_line(tmp_path: Path) -> None:
    go(tmp_path / "run", "random", 5)
    path = tmp_path / "run" / STUDY_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-3] = lines[-3][:40] + b"\0\0\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=rf"study\.log: .*line {len(lines) - 2} is damaged"):
        Study.open(tmp_path / "run")


def test_a_study_of_another_version_is_one_clear_line(tmp_path: Path) -> None:
    go(tmp_path / "run", "random", 2)
    path = tmp_path / "run" / STUDY_FILE
    path.write_bytes(path.read_bytes().replace(b'"format":3', b'"format":2'))
    with pytest.raises(InputError, match=r"study\.log: .*format 2, .* reads 3; start a new run"):
        Study.open(tmp_path / "run")


def test_scores_are_measured_again_where_their_folder_is_gone(tmp_path: Path) -> None:
    _, whole = go(tmp_path / "whole", "rates", 40)
    go(tmp_path / "run", "rates", 23)
    shutil.rmtree(tmp_path / "run" / "scores")
    _, again = go(tmp_path / "run", "rates", 40)
    assert comparable(again.trials) == comparable(whole.trials)


@pytest.mark.parametrize("content", [np.zeros(()), np.zeros((3, 2)), np.array([["a"], ["b"]])])
def test_a_score_file_of_another_shape_counts_as_none(content: object, tmp_path: Path) -> None:
    store, mask = ScoreStore(tmp_path), SPACE.full_mask()
    store.put(mask, ImageScores(losses=np.ones(2), metrics=np.ones(2)))
    (path,) = tmp_path.iterdir()
    np.save(path, np.asarray(content))
    assert store.get(mask) is None


@pytest.mark.parametrize("room", [200, 3000, 9000, 30_000])
def test_a_full_disk_ends_a_search_with_one_line_and_loses_nothing(
    room: int, tmp_path: Path
) -> None:
    _, whole = go(tmp_path / "whole", "rates", 40)
    with tmpfs(tmp_path / "disk") as disk:
        go(disk / "run", "rates", 5)
        filler = fill(disk, but=room)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            go(disk / "run", "rates", 40)
        assert "\n" not in str(caught.value)
        kept = Study.open(disk / "run").trials
        assert comparable(kept) == comparable(whole.trials)[: len(kept)]
        assert len(kept) >= 5
        filler.unlink()
        _, again = go(disk / "run", "rates", 40)
        assert comparable(again.trials) == comparable(whole.trials)


def test_a_folder_that_cannot_be_written_to_can_be_read(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk") as disk:
        _, study = go(disk / "run", "random", 5)
        torn = (disk / "run" / STUDY_FILE).read_bytes() + b'{"op_code":'
        (disk / "run" / STUDY_FILE).write_bytes(torn)
        with read_only(disk):
            assert comparable(Study.open(disk / "run").trials) == comparable(study.trials)
            for attempt in (RunLock, Study.open_for_appending):
                with pytest.raises(EvosearchError, match="Read-only file system") as caught:
                    attempt(disk / "run")
                assert "\n" not in str(caught.value)


HOLD = """
import sys, time
from pathlib import Path
from evosearch.run.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(
            InputError, match=rf"in use by pid {holder.pid} on \S+ since 20\S+; wait for it"
        ):
            RunLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    lock = RunLock(tmp_path)
    assert f"pid {os.getpid()} on " in (tmp_path / "lock").read_text()
    lock.release()


def test_what_a_run_began_with_is_in_its_study(tmp_path: Path) -> None:
    """Readable by people, so that an edit can be undone."""
    go(tmp_path / "run", "random", 1)
    lines = (tmp_path / "run" / STUDY_FILE).read_text().splitlines()
    headers = [line for line in lines if '"space_digest"' in line]
    assert "config" in json.loads(headers[0])["user_attr"]["evosearch"]
