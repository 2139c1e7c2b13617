"""Executors of measurements: this process, worker processes here, or a dask cluster."""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import joblib
from joblib.externals.loky import process_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from evosearch.engine.executor import Evaluator, Job, Measured, carried_out
from evosearch.engine.numbering import WorkerNumber
from evosearch.errors import InputError

CLUSTER_PATIENCE = 600.0
"""Seconds after which a job on a cluster counts as lost, beside its time limit: joblib over dask
waits for ever for a job that kills its workers. Workers load the run in that time, too."""
Build = Callable[[int], Evaluator]
"""Gives a worker its evaluator, by the worker's number, which no other worker here has: what a
worker has for itself, such as a GPU, follows from it. On a cluster all have number 0: there each
is started with what is its own."""
_LOST = (TerminatedWorkerError, multiprocessing.TimeoutError)
"""What joblib raises for a job that does not come back."""


@final
class OneByOne:
    """Measures in this process; each job when its result is asked for."""

    def __init__(self, evaluator: Evaluator, timeout: float | None = None) -> None:
        """Takes who measures, and the most seconds that a job may take."""
        self.images = evaluator.images
        self._evaluator, self._timeout = evaluator, timeout

    def measure(self, jobs: Sequence[Job]) -> Iterator[Measured]:
        """See `Executor.measure`."""
        return (carried_out(self._evaluator, job, self._timeout) for job in jobs)

    def close(self) -> None:
        """See `Executor.close`; there is nothing to free."""


@final
class Workers:
    """Measures in worker processes, through joblib: loky's here, or those of a dask cluster.

    Each worker builds its evaluator once. A job whose worker dies is tried once more, alone;
    if that worker dies too, the job has failed.
    """

    def __init__(
        self,
        build: Build,
        *,
        images: int,
        count: int,
        cluster: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Takes how a worker gets its evaluator.

        Args:
            build: gives the evaluators; pickled, hashable, and equal where evaluators are, also
                to one of an earlier session: workers outlive them.
            images: number of images of the search split.
            count: of worker processes; on a cluster it is what the cluster has.
            cluster: address of a dask scheduler, such as "tcp://host:8786"; None for loky.
            timeout: the most seconds that a job may take; on a cluster it only adds to the time
                after which a job counts as lost, since jobs run in threads there.

        Raises:
            InputError: the cluster is not there, or its workers are not single-threaded; or there
                are to be no workers at all.
        """
        if cluster is None and count < 1:
            raise InputError(f"{count} workers cannot measure: one or more are needed")
        self.images = images
        self._build, self._timeout = build, timeout
        self._client = None if cluster is None else _connected(cluster)
        self._numbers: tuple[Path, int] | None = None
        if self._client is None:
            folder = Path(tempfile.mkdtemp(prefix="evosearch-workers-"))
            self._numbers = folder, count
            self._forget = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._backend: dict[str, Any] = {"backend": "loky", "n_jobs": count}
        self._patience: float | None = None
        if self._client is not None:
            self._backend = {"backend": "dask"}
            self._patience = CLUSTER_PATIENCE + (timeout or 0.0)

    def measure(self, jobs: Sequence[Job]) -> Iterator[Measured]:
        """See `Executor.measure`."""
        left = list(jobs)
        while left:
            results = self._together(left)
            try:
                for result in results:
                    left.pop(0)
                    yield result
            except _LOST:
                # Any job in flight may have done it: the first gets its second try alone.
                yield self._alone(left.pop(0))
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a stopped search drops what is in flight
                    results.close()

    def close(self) -> None:
        """Leaves the cluster, if there is one; idle processes here end by themselves."""
        if self._client is not None:
            self._client.close()
        else:
            self._forget()

    def _together(self, jobs: Sequence[Job]) -> Generator[Measured, None, None]:
        work = joblib.delayed(_work)
        fixed = (self._timeout, os.getpid(), self._numbers)
        calls = [work(self._build, job, *fixed) for job in jobs]
        with joblib.parallel_config(**self._backend):
            parallel = joblib.Parallel(return_as="generator", timeout=self._patience)
            results: Generator[Measured, None, None] = parallel(calls)
        return results

    def _alone(self, job: Job) -> Measured:
        began = time.perf_counter()
        try:
            return next(self._together([job]))
        except _LOST as loss:
            failure = "WorkerDied: its worker process died, twice"
            if isinstance(loss, multiprocessing.TimeoutError):
                failure = f"WorkerLost: nothing came back in {self._patience:g} s, twice"
            return Measured(failure=failure, seconds=time.perf_counter() - began)


_evaluators: dict[Build, Evaluator] = {}
"""In a worker process: the evaluator that it has built."""
_numbers: list[WorkerNumber] = []
"""In a worker process: the number that it holds."""
_one_at_a_time = threading.Lock()


def _work(
    build: Build, job: Job, timeout: float | None, driver: int, numbers: tuple[Path, int] | None
) -> Measured:
    """Carries out a job in a worker process.

    A terminal's Ctrl-C reaches workers too, but what a worker has begun is for it to finish.

    Args:
        build: gives the evaluator.
        job: what is measured.
        timeout: the most seconds that it may take.
        driver: the process that decides when to stop.
        numbers: where this machine's workers take their numbers, and how many there are.
    """
    if os.getpid() != driver and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _one_at_a_time:
        if build not in _evaluators:
            # loky takes a worker that has come to hold a model and its data for a leak, and
            # starts another one in its place.
            process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
            _evaluators.clear()
            _evaluators[build] = build(0 if numbers is None else _taken(*numbers))
        return carried_out(_evaluators[build], job, timeout)


def _taken(folder: Path, count: int) -> int:
    """Returns the number of this process, in place of that of an earlier session."""
    while _numbers:
        _numbers.pop().release()
    _numbers.append(WorkerNumber(folder, count))
    return _numbers[0].number


def require_cluster(address: str) -> None:
    """Checks that a dask cluster can measure, before anything else is begun.

    Raises:
        InputError: see `Workers`.
    """
    _connected(address).close()


def _connected(address: str) -> Any:
    """Returns a dask client that joblib will find."""
    try:
        import distributed
    except ImportError as error:
        raise InputError("--cluster needs dask: pip install 'evosearch[dask]'") from error
    connect: Any = distributed.Client  # untyped
    try:
        client: Any = connect(address, timeout=5)
    except (OSError, ValueError) as error:
        raise InputError(f"--cluster {address!r}: no dask scheduler there ({error})") from error
    threads = list(client.nthreads().values())
    if len(threads) < 2 or max(threads) > 1:
        # joblib runs the jobs of a cluster with one thread in the driver; and two jobs in one
        # process would share torch's threads.
        client.close()
        raise InputError(
            f"--cluster {address!r}: needs two or more workers of one thread each"
            f" (dask worker --nthreads 1), it has {threads}"
        )
    return client
