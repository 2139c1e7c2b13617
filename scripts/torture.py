"""Kills searches with SIGKILL at random moments, resumes them, and compares the final studies.

The toy part, without torch: the real loop, study, score store, strategies and workers on a toy
network whose candidates are scored by arithmetic, in forked processes. Their records are written
64 bytes at a time, so that kills land inside records too. The real part: the installed program on
digits. A kill counts where the process was alive to be killed by it, its workers with it. After
each kill the study must be a beginning of the uninterrupted one; in the end it must be equal:
number, state, genome, mask, values, cost and rung.

Prints a table in Markdown; exits 1 where a study differs.
"""

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import optuna.storages.journal._file as journal

from evosearch.engine.loop import Limits, search
from evosearch.engine.parallel import OneByOne, Workers
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import STUDY_FILE, Study
from tests.run.test_session import SPACE, builder, header
from tests.test_cli import QUICK
from tests.toys import ToyEvaluator, Toys, comparable

STRATEGIES = ("rates", "genetic", "layerwise", "random")
WORKERS = (1, 2)
TOY_TRIALS, REAL_TRIALS = 40, 30


@dataclass
class Tally:
    """What came of one strategy with one number of workers."""

    part: str
    strategy: str
    workers: int
    kills: int = 0
    torn: int = 0
    beginnings: int = 0
    studies: int = 0
    equal: int = 0

    @property
    def is_clean(self) -> bool:
        return self.beginnings == self.kills and self.equal == self.studies


class Slow(io.FileIO):
    """Writes 64 bytes at a time, with time between them to be killed in."""

    def write(self, content: Any) -> int:
        for start in range(0, len(content), 64):
            super().write(content[start : start + 64])
            time.sleep(1e-4)
        return len(content)


def slowly_opened(path: str, mode: str = "r") -> Any:
    """Takes the place of `open` where the journal is written and read."""
    return Slow(path, mode) if "a" in mode else open(path, mode)


def start(action: Callable[[], object], errors: Path) -> int:
    """Runs an action in a process and session of its own; returns its id."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        with errors.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(process: int, errors: Path) -> bool:
    """Waits for a process; returns whether it ended by itself, and well."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        sys.exit(f"a search ended with status {status}:\n{errors.read_text()}")
    return True


def kill_group(process: int) -> None:
    """Kills a session: the process and its workers, unless it has ended."""
    if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        try:
            os.killpg(process, signal.SIGKILL)
        except ProcessLookupError:  # it has no session of its own yet
            os.kill(process, signal.SIGKILL)


def bury(session: int) -> None:
    """Ends what is left of a session whose leader is gone."""
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        return


def torment(
    tally: Tally,
    quota: int,
    begin: Callable[[Path], None],
    go_on: Callable[[Path], object],
    whole: list[Any],
    life: float,
    rng: random.Random,
    place: Path,
) -> None:
    """Kills and resumes studies, one after another, until the quota of kills is met."""
    while tally.kills < quota:
        folder = place / f"study-{tally.studies}"
        begin(folder)
        errors = place / "errors"
        while True:
            process = start(lambda folder=folder: go_on(folder), errors)  # type: ignore[misc]
            if tally.kills < quota:
                time.sleep(rng.uniform(0, life))
                kill_group(process)
            if ended(process, errors):
                break
            bury(process)
            tally.kills += 1
            tally.torn += not (folder / STUDY_FILE).read_bytes().endswith(b"\n")
            so_far = comparable(Study.open(folder).trials)
            tally.beginnings += so_far == whole[: len(so_far)]
        tally.studies += 1
        tally.equal += comparable(Study.open(folder).trials) == whole
        print(f"{tally}", file=sys.stderr, flush=True)


def toy_search(folder: Path, strategy: str, workers: int) -> None:
    """Goes on with a study of the toy network."""
    evaluator = ToyEvaluator()
    alone = OneByOne(evaluator)
    executor = alone if workers == 1 else Workers(Toys(), images=evaluator.images, count=workers)
    journal.open = slowly_opened
    with closing(executor):
        search(
            study=Study.open_for_appending(folder),
            space=SPACE,
            build=builder(strategy),
            executor=executor,
            store=ScoreStore(folder / "scores"),
            limits=Limits(trials=TOY_TRIALS),
        )


def torment_toys(tally: Tally, quota: int, rng: random.Random, place: Path) -> None:
    """Torments searches of the toy network."""

    def begin(folder: Path) -> None:
        folder.mkdir()
        Study.create(folder, header(tally.strategy))

    def go_on(folder: Path) -> None:
        toy_search(folder, tally.strategy, tally.workers)

    begin(place / "whole")
    began = time.monotonic()
    ended(start(lambda: go_on(place / "whole"), place / "errors"), place / "errors")
    life = time.monotonic() - began
    whole = comparable(Study.open(place / "whole").trials)
    alone = place / "alone"
    begin(alone)
    toy_search(alone, tally.strategy, 1)
    assert comparable(Study.open(alone).trials) == whole
    torment(tally, quota, begin, go_on, whole, life, rng, place)


def torment_program(tally: Tally, quota: int, rng: random.Random, place: Path) -> None:
    """Torments the program itself, on digits."""
    (place / "quick.toml").write_text(QUICK)

    def program(*arguments: str) -> None:
        os.chdir(place)
        os.execv(sys.executable, [sys.executable, "-m", "evosearch.cli", *arguments])

    def done(*arguments: str) -> float:
        began = time.monotonic()
        ended(start(lambda: program(*arguments), place / "errors"), place / "errors")
        return time.monotonic() - began

    options = ("--flops", "30%..70%", "--strategy", tally.strategy)
    workers = ("--workers", str(tally.workers)) if tally.workers > 1 else ()

    def begin(folder: Path) -> None:
        done("search", "quick.toml", *options, "--trials", "1", "--out", folder.name)

    def go_on(folder: Path) -> None:
        program("resume", folder.name, "--trials", str(REAL_TRIALS), *workers)

    begin(place / "whole")
    life = done("resume", "whole", "--trials", str(REAL_TRIALS), *workers)
    whole = comparable(Study.open(place / "whole").trials)
    torment(tally, quota, begin, go_on, whole, life, rng, place)


@contextmanager
def workplace() -> Iterator[Path]:
    """Gives a folder for the studies, and for what workers leave when they are killed."""
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as name:
        os.environ["JOBLIB_TEMP_FOLDER"] = name
        os.environ["EVOSEARCH_CACHE"] = f"{name}/cache"
        yield Path(name)


def summary(tallies: list[Tally]) -> str:
    """Returns the outcome as a Markdown table."""
    lines = [
        "| searches | strategy | workers | kills | inside a record | still a beginning |"
        " final studies | equal |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    sums = [0] * 5
    for t in tallies:
        numbers = (t.kills, t.torn, t.beginnings, t.studies, t.equal)
        sums = [a + b for a, b in zip(sums, numbers, strict=True)]
        cells = [t.part, t.strategy, t.workers, *numbers]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append(f"| all | | | {' | '.join(map(str, sums))} |")
    return "\n".join(lines)


def torment_all(tallies: list[Tally], kills: dict[str, int], seed: int) -> None:
    """Torments every strategy with every number of workers, for its share of the kills."""
    pairs = list(product(STRATEGIES, WORKERS))
    for part, torment_part in (("toy", torment_toys), ("real", torment_program)):
        for number, (strategy, workers) in enumerate(pairs):
            upto = [kills[part] * n // len(pairs) for n in (number, number + 1)]
            quota = upto[1] - upto[0]
            if quota:
                rng = random.Random(f"{seed} {part} {strategy} {workers}")
                tallies.append(Tally(part, strategy, workers))
                with workplace() as place:
                    torment_part(tallies[-1], quota, rng, place)


def main() -> None:
    """Torments toys, then the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="of searches without torch")
    parser.add_argument("--real", type=int, default=100, help="kills of the real program")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tallies: list[Tally] = []
    began = time.monotonic()
    try:
        torment_all(tallies, {"toy": arguments.kills, "real": arguments.real}, arguments.seed)
    finally:  # Ctrl-C shows what came of it so far
        print(summary(tallies))
        print(f"\n{time.monotonic() - began:.0f} s, seed {arguments.seed}")
    sys.exit(not all(tally.is_clean for tally in tallies))


if __name__ == "__main__":
    main()
