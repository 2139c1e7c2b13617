"""The epoch loop of everything that trains: steps, learning rates, and a state that is kept."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from evosearch.data.splits import TrainSplit, require_split
from evosearch.machine import device_of
from evosearch.memory import memory_needed
from evosearch.models.precision import PLAIN, Numerics
from evosearch.models.weights import load_state
from evosearch.refit.norms import recalibrate, with_statistics
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import cut, dropped_readers
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.narrowing import narrow
from evosearch.training.distributed import agreed, require_shares
from evosearch.training.epochloss import EpochLoss
from evosearch.training.gradient import BatchLoss, Gradient
from evosearch.training.optimizers import OPTIMIZERS, Optimizer, clear, follow, spare
from evosearch.training.parts import Batches, Moment, Part
from evosearch.training.prefetch import Prefetch
from evosearch.training.schedule import Schedule

NORM_IMAGES = 4096
"""Train images that BatchNorm statistics are measured on after an epoch, at most."""


@final
class Training:
    """The training of one model, epoch by epoch; its state can be saved after any of them.

    Learning rates follow half a cosine to zero, step by step (Loshchilov and Hutter 2017, eq. 5,
    without restarts).

    Attributes:
        mask: the channels that are left of the network that it began with; None where its groups
            are not known.
    """

    def __init__(
        self,
        model: nn.Module,
        train: TrainSplit,
        schedule: Schedule,
        batch_loss: BatchLoss,
        rng: torch.Generator,
        *,
        evaluating: Sequence[nn.Module] = (),
        numerics: Numerics = PLAIN,
        optimizer: Optimizer = "sgd",
        discovery: Discovery | None = None,
        parts: Sequence[Part] = (),
        begun: int = 0,
    ) -> None:
        """Takes what is trained and how.

        The order of the images and their augmentation come from `rng` alone.

        Args:
            model: changed in place.
            train: drawn from without replacement, epoch by epoch.
            schedule: how long and how fast.
            batch_loss: the objective.
            rng: of the CPU.
            evaluating: modules of the model that stay in evaluation mode; not those inside them.
            numerics: what the forward passes compute in.
            optimizer: what makes the steps (see `OPTIMIZERS`), not "auto".
            discovery: the channel groups of the model, where it is to be cut.
            parts: what else takes part, in the order in which it is called.
            begun: epochs of the schedule that count as done: learning rates begin after them.
        """
        require_split(train, TrainSplit)
        self._numerics = numerics
        self._model, self._train, self._schedule = model, train, schedule
        self._drawn: Batches = train
        self._rng, self._evaluating = rng, evaluating
        self._discovery, self._parts = discovery, tuple(parts)
        self.mask = None if discovery is None else discovery.space.full_mask()
        self._done = begun
        self._steps = math.ceil(len(train) / schedule.batch_size)
        self._pieces = schedule.accumulate or 1
        has_norms = bool(with_statistics(model))
        require_shares(len(train), self._steps, self._pieces, has_norms=has_norms)
        self._loss = EpochLoss(schedule, begun)
        self._gradient = Gradient(model, batch_loss, self._parts, numerics, self._pieces)
        for part in self._parts:
            part.joined(self)
        undecayed = frozenset[str]().union(*(part.undecayed() for part in self._parts))
        self._optimizers = OPTIMIZERS[optimizer](model, schedule.lr, schedule.weight_decay)
        for own in self._optimizers:
            spare(own, [p for name, p in model.named_parameters() if name in undecayed])
        self._cosines = [
            CosineAnnealingLR(part, schedule.epochs * self._steps) for part in self._optimizers
        ]
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # no optimizer's step
            for cosine in self._cosines * (begun * self._steps):
                cosine.step()

    def epochs(self, until: int | None = None) -> Iterator[float]:
        """Trains, yielding the mean objective after every epoch that is left.

        Args:
            until: the epoch to stop after, on the way of the whole schedule; None is the last.

        Raises:
            EvaluationError: the objective is no longer finite.
            MemoryExhausted: a step does not fit into memory.
        """
        while self._done < (self._schedule.epochs if until is None else until):
            self._done += 1
            yield self._epoch(self._done)

    @memory_needed("training, raise accumulate or lower batch_size")
    def _epoch(self, epoch: int) -> float:
        model, schedule = self._model, self._schedule
        model.train()
        for module in self._evaluating:
            module.training = False
        self._loss = EpochLoss(schedule, epoch)
        order = torch.randperm(len(self._train), generator=self._rng)
        # Batches of nearly equal size: a last batch of one image would break BatchNorm.
        chosen = order.tensor_split(self._steps)
        followed = zip(chosen, (*chosen[1:], None), strict=True)
        with Prefetch(self._rng, device_of(model)) as prefetch:
            for step, (positions, following) in enumerate(followed):
                done = (epoch - 1) * self._steps + step
                moment = Moment(step=done, epoch_steps=self._steps, epochs=schedule.epochs)
                for part in self._parts:
                    part.before_step(moment)
                images, labels = prefetch.batch(self._drawn, positions, following)
                self._loss.add(self._gradient(images, labels), len(positions))
                for optimizer, cosine in zip(self._optimizers, self._cosines, strict=True):
                    optimizer.step()
                    cosine.step()
                for part in self._parts:
                    part.after_step(len(positions))
        return self._loss.mean()

    def cut(self, mask: Mask) -> None:
        """Takes channels out of the model, in place, and out of what the optimizers remember.

        Modules and their hooks, learning rates and schedules stay. With SGD, training goes on as
        if what reads the dropped channels were held at zero; for Muon see `KernelMuon.follow`.

        Args:
            mask: the channels that stay, of those that the model has now.

        Raises:
            ValueError: the training was begun without channel groups.
        """
        if self._discovery is None or self.mask is None:
            raise ValueError("a training without channel groups cannot be cut")
        mask = agreed(mask)
        composed = self.mask.then(mask)
        replaced = cut(self._model, self._discovery.space.groups, mask)
        for optimizer in self._optimizers:
            follow(optimizer, replaced)
        self._discovery, self.mask = narrow(self._discovery, mask), composed
        for part in self._parts:
            part.after_cut()

    def learn_from(self, batches: Batches) -> None:
        """Draws from something else of the same length from the next step on.

        Its state is not the training's: the part that asks for it does so again when it goes on.
        """
        self._drawn = batches

    def silence(self, mask: Mask) -> None:
        """Puts what reads channels that a mask drops, of those now, at zero, with its momentum.

        After each step of SGD, training goes on as after a cut, and the channels can come back.

        Raises:
            ValueError: the training was begun without channel groups.
        """
        if (known := self._discovery) is None:
            raise ValueError("a training without channel groups cannot silence any")
        groups, mask = known.space.groups, agreed(mask)
        for name, dim, positions in dropped_readers(groups, known.layers, mask):
            clear(self._model.get_parameter(name), self._optimizers, dim, positions)

    def require_finite(self) -> None:
        """Checks the steps of the epoch so far, as `epochs` does after it.

        Raises:
            EvaluationError: the objective is no longer finite.
        """
        self._loss.require_finite()

    @property
    def done(self) -> int:
        """How many epochs are done."""
        return self._done

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        return self._model

    @property
    def discovery(self) -> Discovery | None:
        """The channel groups of the model as narrow as it is; None where they are not known."""
        return self._discovery

    def measure_norms(self) -> None:
        """Measures BatchNorm statistics anew, on train images as the epochs see them.

        The running averages of training remember a few batches, and weights that have moved on
        since (Wu and Johnson 2021, arXiv 2105.07576, section 3).
        """
        place, count = device_of(self._model), min(len(self._train), NORM_IMAGES)
        order = torch.randperm(len(self._train), generator=self._rng)[:count]
        # As many at once as in training, also where a batch goes through in pieces.
        batch_count = math.ceil(count * self._pieces / self._schedule.batch_size)
        chosen = order.tensor_split(batch_count)
        batches = (self._train.batch(positions, self._rng)[0] for positions in chosen)
        laid = (self._numerics.images(batch.to(place)) for batch in batches)
        with self._numerics.computing(place):
            recalibrate(self._model, laid)

    def state(self) -> dict[str, Any]:
        """Returns all that the epochs to come depend on, as tensors and plain values."""
        place = device_of(self._model)
        return {
            "done": self._done,
            "mask": None if self.mask is None else self.mask.to_json(),
            "parts": [part.state() for part in self._parts],
            "model": self._model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "cosines": [cosine.state_dict() for cosine in self._cosines],
            "images": self._rng.get_state(),
            "dropout": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(place) if place.type == "cuda" else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to what `state` gave, in this process or an earlier one.

        The model must be as it was when the training began; it is cut to the saved mask first.
        """
        self._done = state["done"]
        if self.mask is not None:
            sizes = {name: bits.size for name, bits in self.mask.items()}
            self.cut(Mask.from_json(state["mask"], sizes))
        load_state(self._model, state["model"])
        for optimizer, own in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        for cosine, own in zip(self._cosines, state["cosines"], strict=True):
            cosine.load_state_dict(own)
        self._rng.set_state(state["images"])
        torch.set_rng_state(state["dropout"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], device_of(self._model))
        for part, own in zip(self._parts, state["parts"], strict=True):
            part.restore(own)
