"""Distillation: a compact network trained on the outputs of the network it was cut from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import nn

from evosearch.data.splits import SearchSplit, TrainSplit, require_split
from evosearch.machine import device_of, torch_seeded
from evosearch.models.precision import Numerics, Precision, fastest_numerics
from evosearch.models.weights import weights_digest
from evosearch.seeding import Stream, integer
from evosearch.surgery.discovery import Discovery
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.scoring import working_numerics
from evosearch.tasks.task import Task
from evosearch.training.additions import AdditionsConfig, additions, require_additions
from evosearch.training.attention import attention_layers
from evosearch.training.averaging import Averaging
from evosearch.training.bestepoch import BestEpoch
from evosearch.training.checkpoint import Checkpoint
from evosearch.training.epochs import Distillation, OnEpoch
from evosearch.training.heads import holders_of_heads
from evosearch.training.imitation import imitating
from evosearch.training.objective import require_comparable
from evosearch.training.optimizers import Optimizer, resolve_optimizer
from evosearch.training.parts import Part
from evosearch.training.reparametrised import fold
from evosearch.training.schedule import require_pieces
from evosearch.training.towards import Goal
from evosearch.training.trainer import Training


class FinetuneConfig(AdditionsConfig):
    """How a compact network is fine-tuned; what else may take part is in `AdditionsConfig`.

    Attributes:
        epochs: passes over the train split; 0 keeps the network as it was cut.
        batch_size: images per step, at most.
        lr: SGD's learning rate in the first step, of which Muon takes a share; a cosine takes it
            to zero.
        weight_decay: L2 penalty on all parameters that SGD moves.
        accumulate: pieces that a batch goes through the network in, as in `[train]`.
        optimizer: "sgd", or "muon" for the kernels of convolutions and SGD for the rest (see
            `OPTIMIZERS`), or "auto" for Muon where the device is fast with bfloat16. Muon gets
            further in few epochs; in many it need not be better.
        temperature: softens both networks' logits.
        alpha: weight of the softened logits against the labels: 0 is labels only, 1 none. Set it
            to 0 where the task's output is no logits.
        precision: what the forward passes compute in: "bfloat16", "float32", or "auto" for the
            first where the device is faster with it; float32 where the teacher does not work in
            bfloat16. Weights stay float32.
        attention: weight of attention transfer; 0 is none.
        attention_layers: patterns of the modules whose attention maps are matched; empty takes
            the last module of each image size.
    """

    epochs: int = Field(default=20, ge=0)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.05, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    accumulate: int | None = Field(default=None, ge=1)
    optimizer: Optimizer = "sgd"
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, ge=0, le=1)
    precision: Precision = "auto"
    attention: float = Field(default=0.0, ge=0)
    attention_layers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        require_pieces(self, "finetune")
        require_additions(self, self.epochs)
        return self


def distil(
    teacher: nn.Module,
    student: nn.Module,
    train: TrainSplit,
    search: SearchSplit,
    config: FinetuneConfig,
    seed: int,
    on_epoch: OnEpoch | None = None,
    *,
    task: Task = CLASSIFICATION,
    progress: Path | None = None,
    discovery: Discovery | None = None,
    goal: Goal | None = None,
    until: int | None = None,
) -> Distillation:
    """Fine-tunes a student on its teacher's outputs and keeps its best epoch.

    The best epoch is that of least loss on the search split; the network as it came counts as
    epoch 0, and averaged weights, where they are asked for, as another outcome of the last one.
    BatchNorm statistics are measured anew after every epoch. Auxiliary heads are left out. The
    weights are a function of the two networks, the data, the config, the seed and the number of
    threads.

    Args:
        teacher: not changed.
        student: changed in place, and left in evaluation mode.
        train: what is learned from.
        search: what the best epoch is chosen by.
        config: the `[finetune]` section.
        seed: of order and augmentation.
        on_epoch: called after every epoch, and once before the first.
        task: whose loss is the hard part, and which output of both networks is compared.
        progress: a file that keeps how far this went, epoch by epoch, so that one that was
            killed goes on and ends as it would have; None keeps nothing.
        discovery: the student's channel groups, which penalties, kernels and a pace need.
        goal: the channels that the student has in the end, where the config has a pace.
        until: the epoch to stop after, on the way of the whole schedule, so that one that goes on
            from its progress is as if it had not stopped; None is the last.

    Raises:
        InputError: an attention layer is not in both networks, outputs do not fit the task, or
            the student cannot have the kernels or penalties; before the first step.
        EvaluationError: a loss is no longer finite.
        StorageError: the progress cannot be written.
        ValueError: what an addition needs is not given.
    """
    require_split(search, SearchSplit)
    place = device_of(student)
    fastest = fastest_numerics(place, precision=config.precision)
    numerics, _ = working_numerics(teacher, train, fastest, task=task)
    config = _resolved(config, numerics, place)
    layers = _matched_layers(teacher, student, train, config)
    checkpoint = None
    if progress is not None:
        about = _about(teacher, student, train, search, config, seed, goal)
        checkpoint = Checkpoint(progress, about)
    best, averaging = BestEpoch(student, search, config.epochs, on_epoch, task), Averaging()
    rng = torch.Generator().manual_seed(integer(seed, Stream.FINETUNING, "kernels"))
    parts = [*additions(config, config.epochs, rng, goal), best]
    parts += [averaging] if config.average else []
    with _training(
        teacher, student, train, config, seed, task, layers, numerics, discovery, parts
    ) as training:
        saved = None if checkpoint is None else checkpoint.load()
        if saved is None:
            best.record(None)
        else:
            training.restore(saved)
        for train_loss in training.epochs(until):
            training.measure_norms()
            last = len(best.history) == config.epochs
            best.record(train_loss, averaging.take_over if config.average and last else None)
            if checkpoint is not None:
                checkpoint.save(training.state())
    best.keep_best()
    fold(student)
    return Distillation(
        history=tuple(best.history), best_epoch=best.epoch, attention_layers=layers
    )


def distil_blindly(
    teacher: nn.Module,
    student: nn.Module,
    train: TrainSplit,
    config: FinetuneConfig,
    seed: int,
    *,
    numerics: Numerics,
    task: Task = CLASSIFICATION,
) -> None:
    """Fine-tunes a student as `distil` does, and keeps the last epoch: no score chooses.

    Penalties, kernels, paces and averages take no part: they are for networks that are kept.

    Args:
        teacher: not changed.
        student: changed in place, and left in evaluation mode.
        train: what is learned from.
        config: the `[finetune]` section; its precision gives way to `numerics`.
        seed: of order and augmentation.
        numerics: what the forward passes compute in.
        task: whose loss is the hard part, and which output of both networks is compared.

    Raises:
        InputError: an attention layer is not in both networks, or outputs do not fit the task.
        EvaluationError: a loss is no longer finite.
    """
    config = _resolved(config, numerics, device_of(student))
    layers = _matched_layers(teacher, student, train, config)
    with _training(teacher, student, train, config, seed, task, layers, numerics) as training:
        for _ in training.epochs():
            training.measure_norms()
    student.eval()


def _resolved(config: FinetuneConfig, numerics: Numerics, device: torch.device) -> FinetuneConfig:
    """Returns a config with what "auto" stands for, and the precision that training has."""
    found = {
        "precision": numerics.precision,
        "optimizer": resolve_optimizer(config.optimizer, str(device)),
    }
    return config.model_copy(update=found)


def _matched_layers(
    teacher: nn.Module, student: nn.Module, train: TrainSplit, config: FinetuneConfig
) -> tuple[str, ...]:
    """Returns the modules whose attention maps are matched; none without attention."""
    if not config.attention:
        return ()
    return attention_layers(teacher, student, train.images[:1], config.attention_layers)


@contextmanager
def _training(
    teacher: nn.Module,
    student: nn.Module,
    train: TrainSplit,
    config: FinetuneConfig,
    seed: int,
    task: Task,
    layers: Sequence[str],
    numerics: Numerics,
    discovery: Discovery | None = None,
    parts: Sequence[Part] = (),
) -> Iterator[Training]:
    """Gives the training of a student on its teacher's outputs, and on attention at `layers`."""
    require_comparable(
        teacher, train, temperature=config.temperature, alpha=config.alpha, task=task
    )
    rng = torch.Generator().manual_seed(integer(seed, Stream.FINETUNING, "images"))
    holders = [student.get_submodule(name) for name in holders_of_heads(teacher, train, task)]
    seeded = torch_seeded(integer(seed, Stream.FINETUNING, "dropout"), device_of(student))
    imitation = imitating(
        teacher,
        student,
        layers,
        temperature=config.temperature,
        alpha=config.alpha,
        attention=config.attention,
        task=task,
    )
    with seeded, imitation as loss:
        yield Training(
            student,
            train,
            config,
            loss,
            rng,
            evaluating=holders,
            numerics=numerics,
            optimizer=config.optimizer,
            discovery=discovery,
            parts=parts,
        )


def _about(
    teacher: nn.Module,
    student: nn.Module,
    train: TrainSplit,
    search: SearchSplit,
    config: FinetuneConfig,
    seed: int,
    goal: Goal | None,
) -> str:
    """Returns a digest of what a fine-tuning depends on."""
    digest = sha256(f"{weights_digest(teacher)} {weights_digest(student)} {seed}".encode())
    digest.update(config.model_dump_json(exclude_none=True).encode())
    if goal is not None:
        digest.update(f"{goal.mask.key} {goal.order}".encode())
    for split in (train, search):
        digest.update(split.indices.numpy().tobytes())
    return digest.hexdigest()
