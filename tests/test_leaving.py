"""The end of a command's process: at once, and nothing lost."""

import os
import subprocess
import sys

import pytest

LEAVING = """
import atexit, sys, threading, time
from evosearch.cli import program

class Slow:
    def __del__(self):
        sys.stderr.write("taken apart ")
        sys.stderr.flush()

def late():
    time.sleep(0.2)
    sys.stderr.write("thread ")

slow = Slow()
slow.itself = slow
atexit.register(sys.stderr.write, "handler ")
threading.Thread(target=late).start()
program()
"""


def left(*arguments: str, code: str = LEAVING) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=buffered)


def test_threads_and_handlers_finish_and_objects_are_left_alone() -> None:
    done = left("--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert done.stderr == "thread handler "


def test_codes_are_kept() -> None:
    assert left("pareto", "nowhere").returncode == 2
    assert left("serach").returncode == 2


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [("0", 0, ""), ("None", 0, ""), ("3", 3, ""), ("'a reason'", 1, "a reason\n")],
)
def test_codes_are_those_of_sys_exit(raised: str, code: int, said: str) -> None:
    done = left(code=f"from evosearch.cli.leaving import leave; print('kept'); leave({raised})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "kept\n", said)


def test_a_reader_that_left_is_a_failure() -> None:
    code = (
        "import os, sys; from evosearch.cli.leaving import leave;"
        "sys.stdout.write('x'); os.close(1); leave(0)"
    )
    assert left(code=code).returncode == 1
