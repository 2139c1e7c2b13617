"""Who carries out measurements: this process, one after another."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from evosearch.mask import Mask
from evosearch.scores import Evaluator, ImageScores


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


@final
class OneByOne:
    """Measures in this process; each task when its result is asked for."""

    def __init__(self, evaluator: Evaluator) -> None:
        """Takes who measures."""
        self.images = evaluator.images
        self._evaluator = evaluator

    def measure(self, tasks: Sequence[Task]) -> Iterator[Measured]:
        """See `Executor.measure`."""
        return (carried_out(self._evaluator, task) for task in tasks)


def carried_out(evaluator: Evaluator, task: Task) -> Measured:
    """Returns what an evaluator says to a task."""
    began = time.perf_counter()
    scores = error = failure = None
    try:
        if task.stop:
            scores = evaluator.image_scores(task.mask, task.start, task.stop)
        else:
            error = evaluator.compensated_error(task.mask)
    except Exception as problem:  # one bad candidate must not end the run
        failure = f"{type(problem).__name__}: {problem}".splitlines()[0]
    seconds = time.perf_counter() - began
    return Measured(scores=scores, error=error, failure=failure, seconds=seconds)
