"""A job: one measurement of one mask, the evaluator that does it, and what came of it."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, final

import numpy as np

from evosearch.errors import EvaluationError, MemoryExhausted
from evosearch.space.mask import Mask
from evosearch.study.scores import ImageScores


class Evaluator(Protocol):
    """Measures candidates; never changes the model that it was given.

    The same mask always gets the same answer: what an evaluation draws derives from the run's
    seed.
    """

    images: int
    """Number of images of the search split."""

    def prepare(self, *, errors: bool) -> None:
        """Measures once what all scores share, or all compensated errors where those are meant.

        What comes later is the candidate's own time.
        """
        ...

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        """Returns the scores of a mask on the images from `start` up to `stop`.

        The search split is in one random order, the same for all masks of a run; the scores of
        an image do not depend on which others are asked for.

        Raises:
            EvaluationError: the candidate has no finite score.
        """
        ...

    def compensated_error(self, mask: Mask) -> float:
        """Returns the error of all layers whose inputs the mask cuts, after compensation.

        A share of output energy, summed over layers; the third rung of the fitness ladder.
        """
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """A measurement of one mask.

    Attributes:
        mask: what is measured.
        images: the search images that it is scored on; None asks for its compensated error.
    """

    mask: Mask
    images: range | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of a job.

    Attributes:
        scores: of the images, where it named some.
        error: the compensated error, where it named none.
        failure: one line on why there is neither.
        seconds: wall time.
    """

    scores: ImageScores | None = None
    error: float | None = None
    failure: str | None = None
    seconds: float


class Executor(Protocol):
    """Carries out jobs; what comes of a job does not depend on who does it, nor when."""

    images: int
    """Number of images of the search split."""

    def measure(self, jobs: Sequence[Job]) -> Iterator[Measured]:
        """Yields what came of each job, in order; a job that fails ends nothing."""
        ...

    def close(self) -> None:
        """Lets go of what measuring takes."""
        ...


def carried_out(evaluator: Evaluator, job: Job, timeout: float | None = None) -> Measured:
    """Returns what an evaluator says to a job.

    Args:
        evaluator: who measures.
        job: what is measured.
        timeout: seconds after which the job has failed; None is no limit.

    Raises:
        MemoryExhausted: no batch fits into memory.
    """
    began = time.perf_counter()
    scores = error = failure = None
    try:
        evaluator.prepare(errors=job.images is None)
        began = time.perf_counter()
        with _time_limit(timeout):
            if job.images is None:
                error = evaluator.compensated_error(job.mask)
            else:
                scores = evaluator.image_scores(job.mask, job.images.start, job.images.stop)
        _require_finite(scores, error)
    except MemoryExhausted:  # which is no candidate's fault
        raise
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
