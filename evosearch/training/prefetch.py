"""Prefetch of training batches: the next one is made on a thread while a step computes."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, final

import torch
from torch import Tensor

from evosearch.calling import Inputs, each
from evosearch.data.labels import Labels
from evosearch.training.parts import Batches

Batch = tuple[Inputs, Labels]

UNAIDED = frozenset({"cpu"})
"""Types of devices whose steps take the cores that a thread would; there is none for them."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Ahead:
    """A batch that was begun before it was asked for.

    Attributes:
        source: what it is of.
        positions: of its images.
        before: state of the training's generator when it was begun.
        rng: a copy of that generator, which the batch is drawn by.
        made: the batch, or what making it raised.
    """

    source: Batches
    positions: Tensor
    before: Tensor
    rng: torch.Generator
    made: Future[Batch]


@final
class Prefetch:
    """Makes the batches of an epoch, each of them as if it were made when it is asked for.

    The thread draws by a copy of the generator. What it made is handed out where source and
    generator are still what they were when it began, and the generator then goes on from where
    the copy is; where something else drew in between, the batch is made anew. So a training that
    stops between two steps has drawn nothing ahead. What the thread raises is raised where the
    batch is asked for. After the block there is no thread.
    """

    def __init__(self, rng: torch.Generator, device: torch.device) -> None:
        """Takes what is drawn from, of the CPU, and where the steps compute."""
        self._rng, self._device = rng, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._ahead: _Ahead | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def batch(self, source: Batches, positions: Tensor, following: Tensor | None) -> Batch:
        """Returns a batch on the CPU, and begins with the next one.

        Args:
            source: what it is drawn from.
            positions: of its images.
            following: of those of the next batch; None where there is none.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and self._still_fits(ahead, source, positions):
            made = ahead.made.result()
            self._rng.set_state(ahead.rng.get_state())
        else:
            made = self._make(source, positions, self._rng)
        aided = self._device.type not in UNAIDED and source.thread_safe
        if aided and following is not None:
            self._ahead = self._begun(source, following)
        return made

    def _still_fits(self, ahead: _Ahead, source: Batches, positions: Tensor) -> bool:
        asked_for = ahead.source is source and ahead.positions is positions
        return asked_for and torch.equal(ahead.before, self._rng.get_state())

    def _begun(self, source: Batches, positions: Tensor) -> _Ahead:
        before, rng = self._rng.get_state(), torch.Generator()
        rng.set_state(before)
        made = self._thread.submit(self._make, source, positions, rng)
        return _Ahead(source=source, positions=positions, before=before, rng=rng, made=made)

    def _make(self, source: Batches, positions: Tensor, rng: torch.Generator) -> Batch:
        images, labels = source.batch(positions, rng)
        if self._device.type != "cuda":
            return images, labels
        return each(_pinned, images), _pinned(labels) if isinstance(labels, Tensor) else labels


def _pinned(tensor: Tensor) -> Tensor:
    """Returns a tensor where a GPU fetches it from while the program goes on."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor
