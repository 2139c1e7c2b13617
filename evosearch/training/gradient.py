"""The gradient of a step: that of the objective of its batch, and of what parts add to it."""

from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor, nn

from evosearch.calling import Inputs
from evosearch.data.labels import Labels
from evosearch.machine import device_of
from evosearch.models.precision import Numerics
from evosearch.training.distributed import SharedLoss, process_count
from evosearch.training.parts import Part

BatchLoss = Callable[[Inputs, Labels], Tensor]
"""Images and labels of a batch, on the model's device -> mean objective."""


@final
class Gradient:
    """Computes the gradients of a model, batch by batch, and leaves them in its parameters."""

    def __init__(
        self, model: nn.Module, batch_loss: BatchLoss, parts: Sequence[Part], numerics: Numerics
    ) -> None:
        """Takes whose gradients, and of what.

        Args:
            model: it may be cut between batches.
            batch_loss: the objective.
            parts: of the training, which may add to it.
            numerics: what the forward passes compute in.
        """
        self._model, self._batch_loss = model, batch_loss
        self._parts, self._numerics = parts, numerics
        self._objective: BatchLoss = self._whole
        if process_count() > 1:
            self._objective = SharedLoss(model, self._loss, self._terms)

    def __call__(self, images: Inputs, labels: Labels) -> Tensor:
        """Computes the gradient of a batch, in place of the one before.

        Args:
            images: of the whole batch, on the CPU.
            labels: likewise.

        Returns:
            The mean objective, a scalar on the model's device.
        """
        self._model.zero_grad()
        loss = self._objective(images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loss(self, images: Inputs, labels: Labels) -> Tensor:
        """Returns the mean objective of images, in the numerics of the training."""
        place = device_of(self._model)
        with self._numerics.computing(place):
            return self._batch_loss(self._numerics.images(images.to(place)), labels.to(place))

    def _terms(self) -> list[Tensor]:
        """Returns what the parts add to it."""
        with self._numerics.computing(device_of(self._model)):
            terms = [part.term() for part in self._parts]
        return [term for term in terms if term is not None]

    def _whole(self, images: Inputs, labels: Labels) -> Tensor:
        loss = self._loss(images, labels)
        return sum(self._terms(), start=loss)
