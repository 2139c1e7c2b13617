"""Who carries out measurements: this process, worker processes here, or a dask cluster."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, final

import joblib
import numpy as np
from joblib.externals.loky import process_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from evosearch.errors import EvaluationError, InputError
from evosearch.space.mask import Mask
from evosearch.study.scores import Evaluator, ImageScores

CLUSTER_PATIENCE = 600.0
"""Seconds after which a task on a cluster counts as lost, beside its time limit: joblib over dask
waits for ever for a task that kills its workers. Workers load the run in that time, too."""
_LOST = (TerminatedWorkerError, multiprocessing.TimeoutError)
"""What joblib raises for a task that does not come back."""


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """A measurement of one mask.

    Attributes:
        mask: what is measured.
        start, stop: the search images that it is scored on; none for its compensated error.
    """

    mask: Mask
    start: int = 0
    stop: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of a task.

    Attributes:
        scores: of the images, where it named any.
        error: the compensated error, where it did not.
        failure: one line on why there is neither.
        seconds: wall time.
    """

    scores: ImageScores | None = None
    error: float | None = None
    failure: str | None = None
    seconds: float


class Executor(Protocol):
    """Carries out tasks; what comes of a task does not depend on who does it, nor when."""

    images: int
    """Number of images of the search split."""

    def measure(self, tasks: Sequence[Task]) -> Iterator[Measured]:
        """Yields what came of each task, in order; a task that fails ends nothing."""
        ...

    def close(self) -> None:
        """Lets go of what measuring takes."""
        ...


@final
class OneByOne:
    """Measures in this process; each task when its result is asked for."""

    def __init__(self, evaluator: Evaluator, timeout: float | None = None) -> None:
        """Takes who measures, and the most seconds that a task may take."""
        self.images = evaluator.images
        self._evaluator, self._timeout = evaluator, timeout

    def measure(self, tasks: Sequence[Task]) -> Iterator[Measured]:
        """See `Executor.measure`."""
        return (carried_out(self._evaluator, task, self._timeout) for task in tasks)

    def close(self) -> None:
        """See `Executor.close`; there is nothing to free."""


@final
class Workers:
    """Measures in worker processes, through joblib: loky's here, or those of a dask cluster.

    Each worker builds its evaluator once. A task whose worker dies is tried once more, alone;
    if that worker dies too, the task has failed.
    """

    def __init__(
        self,
        build: Callable[[], Evaluator],
        *,
        images: int,
        count: int,
        cluster: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Takes how a worker gets its evaluator.

        Args:
            build: gives the evaluator; pickled, hashable, and equal where evaluators are, also to
                one of an earlier session: workers outlive them.
            images: number of images of the search split.
            count: of worker processes; on a cluster it is what the cluster has.
            cluster: address of a dask scheduler, such as "tcp://host:8786"; None for loky.
            timeout: the most seconds that a task may take; on a cluster it only adds to the time
                after which a task counts as lost, since tasks run in threads there.

        Raises:
            InputError: the cluster is not there, or its workers are not single-threaded; or there
                are to be no workers at all.
        """
        if cluster is None and count < 1:
            raise InputError(f"{count} workers cannot measure: one or more are needed")
        self.images = images
        self._build, self._timeout = build, timeout
        self._client = None if cluster is None else _connected(cluster)
        self._backend: dict[str, Any] = {"backend": "loky", "n_jobs": count}
        self._patience: float | None = None
        if self._client is not None:
            self._backend = {"backend": "dask"}
            self._patience = CLUSTER_PATIENCE + (timeout or 0.0)

    def measure(self, tasks: Sequence[Task]) -> Iterator[Measured]:
        """See `Executor.measure`."""
        left = list(tasks)
        while left:
            results = self._together(left)
            try:
                for result in results:
                    left.pop(0)
                    yield result
            except _LOST:
                # Any task in flight may have done it: the first gets its second try alone.
                yield self._alone(left.pop(0))
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a stopped search drops what is in flight
                    results.close()

    def close(self) -> None:
        """Leaves the cluster, if there is one; idle processes here end by themselves."""
        if self._client is not None:
            self._client.close()

    def _together(self, tasks: Sequence[Task]) -> Generator[Measured, None, None]:
        work = joblib.delayed(_work)
        calls = [work(self._build, task, self._timeout, os.getpid()) for task in tasks]
        with joblib.parallel_config(**self._backend):
            parallel = joblib.Parallel(return_as="generator", timeout=self._patience)
            results: Generator[Measured, None, None] = parallel(calls)
        return results

    def _alone(self, task: Task) -> Measured:
        began = time.perf_counter()
        try:
            return next(self._together([task]))
        except _LOST as loss:
            failure = "WorkerDied: its worker process died, twice"
            if isinstance(loss, multiprocessing.TimeoutError):
                failure = f"WorkerLost: nothing came back in {self._patience:g} s, twice"
            return Measured(failure=failure, seconds=time.perf_counter() - began)


def carried_out(evaluator: Evaluator, task: Task, timeout: float | None = None) -> Measured:
    """Returns what an evaluator says to a task.

    Args:
        evaluator: who measures.
        task: what is measured.
        timeout: seconds after which the task has failed; None is no limit.
    """
    began = time.perf_counter()
    scores = error = failure = None
    try:
        evaluator.prepare(errors=not task.stop)
        began = time.perf_counter()
        with _time_limit(timeout):
            if task.stop:
                scores = evaluator.image_scores(task.mask, task.start, task.stop)
            else:
                error = evaluator.compensated_error(task.mask)
        _require_finite(scores, error)
    except Exception as problem:  # one bad candidate must not end the run
        failure = f"{type(problem).__name__}: {problem}".splitlines()[0]
        scores = error = None
    seconds = time.perf_counter() - began
    return Measured(scores=scores, error=error, failure=failure, seconds=seconds)


def _require_finite(scores: ImageScores | None, error: float | None) -> None:
    if scores is not None and not np.isfinite(scores.losses).all():
        raise EvaluationError("the loss is not finite")
    if error is not None and not np.isfinite(error):
        raise EvaluationError(f"the compensated error is {error}")


_evaluators: dict[Callable[[], Evaluator], Evaluator] = {}
"""In a worker process: the evaluator that it has built."""
_one_at_a_time = threading.Lock()


def _work(
    build: Callable[[], Evaluator], task: Task, timeout: float | None, driver: int
) -> Measured:
    """Carries out a task in a worker process; `driver` is the process that decides when to stop.

    A terminal's Ctrl-C reaches workers too, but what a worker has begun is for it to finish.
    """
    if os.getpid() != driver and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _one_at_a_time:
        if build not in _evaluators:
            # loky takes a worker that has come to hold a model and its data for a leak, and
            # starts another one in its place.
            process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
            _evaluators.clear()
            _evaluators[build] = build()
        return carried_out(_evaluators[build], task, timeout)


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError inside the block when it takes too long; in main threads only."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
        # joblib runs the tasks of a cluster with one thread in the driver; and two tasks in one
        # process would share torch's threads.
        client.close()
        raise InputError(
            f"--cluster {address!r}: needs two or more workers of one thread each"
            f" (dask worker --nthreads 1), it has {threads}"
        )
    return client
