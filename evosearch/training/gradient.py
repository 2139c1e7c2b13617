"""The gradient of a step: of its batch, whole or in pieces, and of what parts add to it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from evosearch.calling import Inputs, each, slices
from evosearch.data.labels import Labels
from evosearch.machine import device_of
from evosearch.models.precision import Numerics
from evosearch.training.distributed import SharedGradient, process_count, process_mean
from evosearch.training.parts import Part

BatchLoss = Callable[[Inputs, Labels], Tensor]
"""Images and labels of a batch, on the model's device -> mean objective."""


@final
class Gradient:
    """Computes the gradients of a model, batch by batch, and leaves them in its parameters.

    A batch can go through the network in several pieces, one after the other, each counted by how
    many images it has: the gradient is that of the whole batch, and takes the memory of a piece.
    What is made of several images together is made of those of a piece: the statistics that
    BatchNorm normalises by, and the terms of gates.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_loss: BatchLoss,
        parts: Sequence[Part],
        numerics: Numerics,
        accumulate: int,
    ) -> None:
        """Takes whose gradients, and of what.

        Args:
            model: it may be cut between batches.
            batch_loss: the objective.
            parts: of the training, which may add to it.
            numerics: what the forward passes compute in.
            accumulate: pieces that a batch goes through the network in.
        """
        self._model, self._batch_loss = model, batch_loss
        self._parts, self._numerics = parts, numerics
        self._accumulate = accumulate
        self._shared = None
        if process_count() > 1:
            self._shared = SharedGradient(model, self._loss, self._terms)

    def __call__(self, images: Inputs, labels: Labels) -> Tensor:
        """Computes the gradient of a batch, in place of the one before.

        Args:
            images: of the whole batch, on the CPU.
            labels: likewise.

        Returns:
            The mean objective, a scalar on the model's device.
        """
        self._model.zero_grad()
        *before, last = slices(len(images), self._accumulate)
        losses = [self._add(images, labels, piece) for piece in before]
        losses.append(self._add(images, labels, last, is_last=True))
        return process_mean(torch.stack(losses).sum())

    def _add(
        self, images: Inputs, labels: Labels, piece: slice, *, is_last: bool = False
    ) -> Tensor:
        """Adds the gradient of a piece of a batch; returns what it adds to the objective."""
        weight = (piece.stop - piece.start) / len(images)
        if self._shared is not None:
            return self._shared.add(images[piece], labels[piece], weight, is_last=is_last)
        loss = self._loss(images[piece], labels[piece])
        added: Tensor = sum(self._terms(), start=loss) * weight
        added.backward()  # type: ignore[no-untyped-call]
        return added.detach()

    def _loss(self, images: Inputs, labels: Labels) -> Tensor:
        """Returns the mean objective of images, in the numerics of the training."""
        place = device_of(self._model)
        images = each(partial(_brought, place=place), images)
        labels = _brought(labels, place) if isinstance(labels, Tensor) else labels.to(place)
        with self._numerics.computing(place):
            return self._batch_loss(self._numerics.images(images), labels)

    def _terms(self) -> list[Tensor]:
        """Returns what the parts add to it."""
        with self._numerics.computing(device_of(self._model)):
            terms = [part.term() for part in self._parts]
        return [term for term in terms if term is not None]


def _brought(tensor: Tensor, place: torch.device) -> Tensor:
    """Returns a tensor on a device, which fetches it in its turn where it is pinned."""
    return tensor.to(place, non_blocking=True)
