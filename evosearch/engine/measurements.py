"""The memory of measurements: each mask is scored once, on images that are still missing."""

from collections.abc import Callable, Iterator, Sequence
from typing import final

from evosearch.engine.executor import Executor, Job, Measured
from evosearch.space.mask import Mask
from evosearch.study.scorestore import ScoreStore


@final
class Measurements:
    """Has masks measured, whole rounds of them at a time, and keeps the scores of images."""

    def __init__(
        self,
        executor: Executor,
        store: ScoreStore,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes who measures and who remembers.

        Args:
            executor: carries out measurements.
            store: remembers scores of images, and is asked first.
            checkpoint: called before every measurement; what it raises ends the round.
        """
        self._executor, self._store, self._checkpoint = executor, store, checkpoint
        self.images = executor.images

    def errors(self, masks: Sequence[Mask]) -> Iterator[Measured]:
        """Yields each mask's compensated error."""
        results = self._executor.measure([Job(mask=mask) for mask in masks])
        for _ in masks:
            self._checkpoint()
            yield next(results)

    def seconds(self, masks: Sequence[Mask], images: int | None) -> list[float]:
        """Returns what each mask takes, of those that do not fail; nothing is remembered.

        Args:
            masks: measured anew.
            images: that they are scored on; None is for the compensated error.
        """
        wanted = None if images is None else range(images)
        results = self._executor.measure([Job(mask=mask, images=wanted) for mask in masks])
        found = []
        for _ in masks:
            self._checkpoint()
            found.append(next(results))
        return [measured.seconds for measured in found if measured.failure is None]

    def scores(self, masks: Sequence[Mask], images: int) -> Iterator[Measured]:
        """Yields each mask's scores on so many images from the first on."""
        have = [self._store.get(mask) for mask in masks]
        missing = [
            Job(mask=mask, images=range(0 if old is None else len(old.losses), images))
            for mask, old in zip(masks, have, strict=True)
            if old is None or len(old.losses) < images
        ]
        results = self._executor.measure(missing)
        for mask, old in zip(masks, have, strict=True):
            if old is not None and len(old.losses) >= images:
                yield Measured(scores=old.between(0, images), seconds=0.0)
                continue
            self._checkpoint()
            result = next(results)
            if result.scores is not None:
                scores = result.scores if old is None else old.then(result.scores)
                self._store.put(mask, scores)
                result = Measured(scores=scores, seconds=result.seconds)
            yield result
