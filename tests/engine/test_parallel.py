"""Worker processes: the same measurements as one process, and nothing lost when one dies."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from evosearch.engine.executor import Evaluator, Executor, Job, carried_out
from evosearch.engine.loop import Limits, search
from evosearch.engine.numbering import WorkerNumber
from evosearch.engine.parallel import OneByOne, Workers
from evosearch.errors import InputError
from evosearch.machine import take_gpu
from evosearch.run.reopening import RunEvaluator
from evosearch.space.mask import Mask
from evosearch.study.scores import ImageScores
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from tests.run.test_session import SPACE, builder, header
from tests.toys import ToyEvaluator, comparable

# loky's own thread stumbles over a process that it has buried, also once the next test runs.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Deadly(ToyEvaluator):
    """Kills its process at the mask that keeps everything, and stops at one without a stem."""

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        if all(bits.all() for bits in mask.values()):
            os._exit(1)
        if mask["stem"].sum() == 1:
            time.sleep(60)
        return super().image_scores(mask, start, stop)


@dataclass(frozen=True)
class Toys:
    """Gives a worker its toy evaluator."""

    deadly: bool = False

    def __call__(self, worker: int) -> Evaluator:
        return Deadly() if self.deadly else ToyEvaluator()


def masks(count: int) -> list[Mask]:
    rng = np.random.default_rng(0)
    return [
        Mask({g.name: rng.permutation(g.size) < g.size // 2 for g in SPACE.groups})
        for _ in range(count)
    ]


class Numbered(ToyEvaluator):
    """Says by its compensated errors which number its process has."""

    def __init__(self, worker: int) -> None:
        super().__init__(failing=False)
        self._worker = worker

    def compensated_error(self, mask: Mask) -> float:
        time.sleep(0.05)  # so that no worker takes all jobs
        return float(self._worker)


@dataclass(frozen=True)
class Numbering:
    """Gives a worker an evaluator that knows its number."""

    session: str

    def __call__(self, worker: int) -> Evaluator:
        return Numbered(worker)


def numbers(executor: Executor, jobs: int) -> set[float | None]:
    return {found.error for found in executor.measure([Job(mask=m) for m in masks(jobs)])}


def workers(deadly: bool = False, timeout: float | None = None) -> Workers:
    return Workers(Toys(deadly), images=100, count=2, timeout=timeout)


def studied(folder: Path, executor: Executor) -> Study:
    folder.mkdir()
    study = Study.create(folder, header("rates"))
    search(
        study=study,
        space=SPACE,
        build=builder("rates"),
        executor=executor,
        store=ScoreStore(folder / "scores"),
        limits=Limits(trials=22),
    )
    return study


def test_two_workers_give_the_study_of_one_process(tmp_path: Path) -> None:
    alone = studied(tmp_path / "one", OneByOne(ToyEvaluator()))
    together = studied(tmp_path / "two", workers())
    assert comparable(alone.trials) == comparable(together.trials)
    assert any(trial.error for trial in alone.trials)


def test_a_task_that_kills_its_worker_fails_and_the_others_do_not() -> None:
    full = SPACE.full_mask()
    tasks = [Job(mask=m, images=range(100)) for m in (*masks(2), full, *masks(5)[2:])]
    results = list(workers(deadly=True).measure(tasks))
    failures = [result.failure for result in results]
    assert failures[2] == "WorkerDied: its worker process died, twice"
    del failures[2], tasks[2], results[2]
    toys = ToyEvaluator()
    for task, result, failure in zip(tasks, results, failures, strict=True):
        expected = carried_out(toys, task)
        assert failure == expected.failure
        if expected.scores is not None:
            assert result.scores is not None
            np.testing.assert_array_equal(result.scores.losses, expected.scores.losses)


def timed_out(executor: Executor) -> str | None:
    slow = Mask({g.name: np.arange(g.size) < 1 for g in SPACE.groups})
    began = time.monotonic()
    (result,) = executor.measure([Job(mask=slow, images=range(100))])
    assert time.monotonic() - began < 30
    return result.failure


@pytest.mark.parametrize(
    "make", [lambda: OneByOne(Deadly(), 0.2), lambda: workers(True, 0.2)], ids=["here", "worker"]
)
def test_a_task_that_takes_too_long_fails(make: Callable[[], Executor]) -> None:
    assert timed_out(make()) == "TimeoutError: took longer than 0.2 s"


class Slow(ToyEvaluator):
    """Takes its time before the first measurement."""

    def prepare(self, *, errors: bool) -> None:
        time.sleep(0.5)


def test_what_candidates_share_is_not_their_time() -> None:
    (result,) = OneByOne(Slow(failing=False), 0.2).measure(
        [Job(mask=masks(1)[0], images=range(100))]
    )
    assert result.failure is None
    assert result.seconds < 0.5


def test_workers_of_an_earlier_session_do_not_serve_a_run_of_the_same_name() -> None:
    build = RunEvaluator("runs/x")
    assert copy(build) == build
    assert RunEvaluator("runs/x") != build


def test_no_workers_are_refused() -> None:
    with pytest.raises(InputError, match="0 workers cannot measure"):
        Workers(Toys(), images=100, count=0)


def test_a_stopped_round_drops_what_is_in_flight_quietly() -> None:
    results = workers().measure([Job(mask=m, images=range(100)) for m in masks(8)])
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as found:
        yield found.scheduler_address


@pytest.mark.filterwarnings("ignore")  # of dask's own
def test_a_dask_cluster_gives_the_same_study(tmp_path: Path, cluster: str) -> None:
    alone = studied(tmp_path / "one", OneByOne(ToyEvaluator()))
    executor = Workers(Toys(), images=100, count=0, cluster=cluster)
    with closing(executor):
        found = studied(tmp_path / "dask", executor)
    assert comparable(found.trials) == comparable(alone.trials)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_task_that_kills_a_clusters_workers_fails_and_the_others_do_not(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.engine.parallel.CLUSTER_PATIENCE", 15.0)
    tasks = [Job(mask=m, images=range(100)) for m in (SPACE.full_mask(), *masks(2))]
    executor = Workers(Toys(deadly=True), images=100, count=0, cluster=cluster)
    with closing(executor):
        found = list(executor.measure(tasks))
    assert found[0].failure == "WorkerLost: nothing came back in 15 s, twice"
    assert [m.failure for m in found[1:]] == [
        carried_out(ToyEvaluator(), task).failure for task in tasks[1:]
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_of_threads_is_refused() -> None:
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None
        ) as found,
        pytest.raises(InputError, match="two or more workers of one thread each"),
    ):
        Workers(Toys(), images=100, count=0, cluster=found.scheduler_address)


def test_a_cluster_that_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="no dask scheduler there"):
        Workers(Toys(), images=100, count=0, cluster="nowhere")


def test_each_worker_has_a_number_of_its_own() -> None:
    with closing(Workers(Numbering("first"), images=100, count=2)) as executor:
        assert numbers(executor, 12) == {0.0, 1.0}
    with closing(Workers(Numbering("second"), images=100, count=2)) as executor:
        assert numbers(executor, 12) == {0.0, 1.0}  # by the same processes, anew


class Meeting(ToyEvaluator):
    """Ends no measurement before another one has begun."""

    def __init__(self, folder: Path) -> None:
        super().__init__(failing=False)
        self._folder = folder

    def compensated_error(self, mask: Mask) -> float:
        (self._folder / mask.key).touch(exist_ok=False)
        late = time.monotonic() + 60
        while len(list(self._folder.iterdir())) < 2:
            if time.monotonic() > late:
                raise TimeoutError("alone")
            time.sleep(0.01)
        return super().compensated_error(mask)


@dataclass(frozen=True)
class Meetings:
    folder: Path

    def __call__(self, worker: int) -> Evaluator:
        return Meeting(self.folder)


@pytest.mark.filterwarnings("ignore")
def test_workers_of_a_cluster_measure_at_once_and_each_job_once(
    tmp_path: Path, cluster: str
) -> None:
    jobs = [Job(mask=mask) for mask in masks(9)]
    with closing(Workers(Meetings(tmp_path), images=100, count=0, cluster=cluster)) as executor:
        found = list(executor.measure(jobs))
    assert [measured.failure for measured in found] == [None] * len(jobs)
    toys = ToyEvaluator()
    assert [m.error for m in found] == [toys.compensated_error(job.mask) for job in jobs]
    assert {path.name for path in tmp_path.iterdir()} == {job.mask.key for job in jobs}


@pytest.mark.filterwarnings("ignore")
def test_on_a_cluster_every_worker_has_what_it_was_started_with(cluster: str) -> None:
    """A worker of dask-cuda sees its own GPU as the first: to count on would take another's."""
    with closing(Workers(Numbering("dask"), images=100, count=0, cluster=cluster)) as executor:
        assert numbers(executor, 8) == {0.0}


def test_a_process_that_dies_leaves_its_number_to_the_next(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path;"
        " from evosearch.engine.numbering import WorkerNumber;"
        " own = WorkerNumber(Path(sys.argv[1]), 2); print(own.number, flush=True);"
        " time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "0\n"
        other = WorkerNumber(tmp_path, 2)
        assert other.number == 1
        other.release()
        holder.kill()
    heir = WorkerNumber(tmp_path, 2)
    assert heir.number == 0
    heir.release()


def test_numbers_are_the_lowest_that_are_free(tmp_path: Path) -> None:
    first, second, third = held = [WorkerNumber(tmp_path, 3) for _ in range(3)]
    assert [first.number, second.number, third.number] == [0, 1, 2]
    assert WorkerNumber(tmp_path, 3).number == 0  # all are held
    second.release()
    held.append(WorkerNumber(tmp_path, 3))
    assert held[-1].number == 1
    for number in held:
        number.release()


@pytest.mark.parametrize(
    ("device", "taken"),
    [("cuda", [0, 1, 2, 3, 0, 1]), ("cuda:1", []), ("cpu", [])],
)
def test_workers_take_the_gpus_in_turn(
    device: str, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", set_to.append)
    for worker in range(6):
        take_gpu(device, worker)
    assert set_to == taken


def test_a_worker_that_sees_no_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"a worker on .* sees no CUDA device"):
        take_gpu("cuda", 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_what_a_worker_calls_cuda_is_its_own_gpu() -> None:
    before, count = torch.cuda.current_device(), torch.cuda.device_count()
    try:
        for worker in range(2 * count):
            take_gpu("cuda", worker)
            assert torch.zeros(1, device="cuda").get_device() == worker % count
    finally:
        torch.cuda.set_device(before)
