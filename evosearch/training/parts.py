"""The protocol of what takes part in a training: losses, cuts, the best epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from evosearch.calling import Inputs
from evosearch.data.labels import Labels
from evosearch.space.mask import Mask
from evosearch.surgery.discovery import Discovery


@final
@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a training is, before one of its steps.

    Attributes:
        step: steps done.
        epoch_steps: steps of an epoch.
        epochs: of the training.
    """

    step: int
    epoch_steps: int
    epochs: int

    @property
    def t(self) -> float:
        """The share of all steps that are done, in [0, 1)."""
        return self.step / (self.epoch_steps * self.epochs)

    @property
    def is_last(self) -> bool:
        """Whether the next step is the last of all."""
        return self.step + 1 == self.epoch_steps * self.epochs

    @property
    def begins_epoch(self) -> bool:
        """Whether the next step is the first of its epoch."""
        return self.step % self.epoch_steps == 0


class Batches(Protocol):
    """What a training draws from; a `TrainSplit` is one."""

    @property
    def thread_safe(self) -> bool:
        """Whether a thread may make a batch beside a step, which draws and reads other things."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Inputs, Labels]:
        """Returns what the objective gets, and labels, at `positions`."""
        ...


class Host(Protocol):
    """A training as its parts see it; `trainer.Training` is one."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def discovery(self) -> Discovery | None:
        """The channel groups of the model as narrow as it is; None where they are not known."""
        ...

    @property
    def mask(self) -> Mask | None:
        """The channels that are left of the network that it began with."""
        ...

    def cut(self, mask: Mask) -> None:
        """Takes channels out of the model, in place; `mask` is of those that it has now."""
        ...

    def learn_from(self, batches: Batches) -> None:
        """Draws from something else of the same length from here on."""
        ...

    def measure_norms(self) -> None:
        """Measures BatchNorm statistics anew, on train images as the epochs see them."""
        ...

    def require_finite(self) -> None:
        """Refuses a network that diverged in a step before; to be called before it is judged."""
        ...

    def silence(self, mask: Mask) -> None:
        """Puts what reads the channels that a mask drops at zero, of those of the model now."""
        ...


class Part:
    """What takes part in a training beside its objective; what is not overridden does nothing.

    A part owns its settings and its state. What its state does not hold is determined by the
    network, the mask in force and how far the training is, so that one that was killed goes on as
    it would have.
    """

    def joined(self, training: Host) -> None:
        """Is called once, by the training that it takes part in, when that is made."""

    def undecayed(self) -> frozenset[str]:
        """Returns the names of parameters that weight decay must leave alone; asked once."""
        return frozenset()

    def before_step(self, moment: Moment) -> None:
        """Is called before every step; the place for a cut."""

    def term(self) -> Tensor | None:
        """Returns what is added to the objective of a batch or of a piece of it, with gradient."""
        return None

    def after_step(self, images: int) -> None:
        """Is called after every step, with how many images it was made on."""

    def after_cut(self) -> None:
        """Is called when the network has become a smaller one."""

    def state(self) -> dict[str, Any]:
        """Returns what the steps to come depend on, as tensors and plain values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to what `state` gave; the network has been cut as it was then."""
