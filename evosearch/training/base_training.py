"""The training of a base network from scratch."""

import time
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.errors import InputError
from evosearch.machine import device_of, torch_seeded
from evosearch.models.precision import fastest_numerics
from evosearch.seeding import Stream, integer
from evosearch.surgery.discovery import Discovery
from evosearch.tasks.classification import CLASSIFICATION, cross_entropy
from evosearch.tasks.scoring import score, working_numerics
from evosearch.tasks.task import Task
from evosearch.training.epochs import EpochRecord, OnEpoch
from evosearch.training.frozen import FrozenPrefix
from evosearch.training.gradient import BatchLoss
from evosearch.training.parts import Part
from evosearch.training.penalized import Penalized
from evosearch.training.penalties import require_penalties
from evosearch.training.schedule import require_pieces
from evosearch.training.trainer import Training


class TrainConfig(BaseModel):
    """How a base network is trained.

    Attributes:
        epochs: passes over the train split.
        batch_size: images per step, at most: an epoch is cut into batches of nearly equal size.
        lr: learning rate of the first step; a cosine takes it to zero.
        weight_decay: L2 penalty on all parameters.
        accumulate: pieces that a batch goes through the network in, one after the other, for
            memory: gradients are those of the whole batch, but BatchNorm normalises by the
            statistics of a piece.
        label_smoothing: probability that is spread evenly over the classes, in [0, 1); not with
            a loss of the task's own.
        freeze: share of its first change in an epoch under which a layer counts as at rest: the
            first layers are frozen once they all rest (Learn & Drop); none is never. Of the
            training of a base network alone.
        penalties: losses on the weights by name, each with its weight beside the task's loss; a
            training under a budget has those of `[prune.penalties]` instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    accumulate: int | None = Field(default=None, ge=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    freeze: float | None = Field(default=None, gt=0, lt=1)
    penalties: dict[str, float] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        require_pieces(self, "train")
        require_penalties(self.penalties or {}, "[train.penalties]")
        if self.penalties and self.freeze is not None:
            raise InputError(
                "[train] freeze waits for layers to rest, and penalties keep moving them: leave"
                " one of the two out"
            )
        return self


def train_base(
    model: nn.Module,
    train: TrainSplit,
    search: SearchSplit | None,
    config: TrainConfig,
    seed: int,
    on_epoch: OnEpoch | None = None,
    *,
    task: Task = CLASSIFICATION,
    discovery: Discovery | None = None,
) -> tuple[EpochRecord, ...]:
    """Trains a base network on its task's loss; the network of the last epoch is the result.

    The search split only shows how training goes: nothing is chosen by it, so that it stays a
    fair judge of the networks cut from this one. The weights are a function of the initial
    weights, the data, the config, the seed and the number of threads.

    Args:
        model: changed in place, and left in evaluation mode.
        train: what is learned.
        search: scored after every epoch, where given.
        config: the `[train]` section.
        seed: of order and augmentation.
        on_epoch: called after every epoch.
        task: whose loss is lowered.
        discovery: the model's channel groups, which penalties need.

    Returns:
        One record per epoch.

    Raises:
        EvaluationError: the loss is no longer finite.
        InputError: the outputs do not fit the task, or labels are to be smoothed for a loss of
            the task's own; or layers are to be frozen of a network whose code cannot be followed,
            or a penalty is about what the network has not.
    """
    frozen = None if config.freeze is None else FrozenPrefix(model, train, config.freeze)
    loss = label_loss(model, config, task, frozen)
    began = time.perf_counter()
    rng = torch.Generator().manual_seed(integer(seed, Stream.BASE_TRAINING, "images"))
    place = device_of(model)
    fastest = fastest_numerics(place, precision="float32")
    numerics, _ = working_numerics(model, train, fastest, task=task)
    history: list[EpochRecord] = []
    with torch_seeded(integer(seed, Stream.BASE_TRAINING, "dropout"), place):
        parts: list[Part] = [Penalized(config.penalties)] if config.penalties else []
        if frozen is not None:
            parts.append(frozen)
        training = Training(
            model,
            train,
            config,
            loss,
            rng,
            numerics=numerics,
            discovery=discovery,
            parts=parts,
        )
        for train_loss in training.epochs():
            record = EpochRecord(
                epoch=len(history) + 1,
                epochs=config.epochs,
                train_loss=train_loss,
                search=None if search is None else score(model, search, task=task),
                seconds=time.perf_counter() - began,
            )
            history.append(record)
            if on_epoch is not None:
                on_epoch(record)
    if frozen is not None:
        frozen.release()
    model.eval()
    return tuple(history)


def label_loss(
    model: nn.Module, config: TrainConfig, task: Task, prefix: FrozenPrefix | None = None
) -> BatchLoss:
    """Returns the objective of training on labels: the task's loss, smoothed where asked for.

    Args:
        model: what is trained.
        config: the `[train]` section.
        task: whose loss is lowered.
        prefix: what is called in the model's place, where its first layers are to be frozen.

    Raises:
        InputError: labels are to be smoothed for a loss of the task's own.
    """
    if config.label_smoothing and task.loss is not cross_entropy:
        raise InputError("[train] label_smoothing is for cross-entropy; [task] has its own loss")

    def loss(images: Inputs, labels: Labels) -> Tensor:
        if prefix is None and not config.label_smoothing:
            return task.batch_loss(model, images, labels)
        output = task.outputs(call(model, images) if prefix is None else prefix(images))
        if config.label_smoothing:
            target = task.targets(labels)
            return functional.cross_entropy(output, target, label_smoothing=config.label_smoothing)
        return task.losses(output, labels).mean()

    return loss
