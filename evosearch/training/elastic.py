"""Elastic weights: one copy of a network, whose changes in training serve many plans alike.

A plan's network begins compensated, and has added to it what the copy's weights change by, where
they are the same channels: a `Slice` with a start. Each step takes the smallest plan and some of
the drawn ones: the sandwich rule of Yu and Huang 2019 (arXiv 1903.05134) without its largest plan.
That is the teacher here: every slice learns from the base network's outputs, as those of Cai et
al. 2020 (arXiv 1908.09791) do.
"""

from collections.abc import Callable, Sequence
from typing import Self, final

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.data.splits import TrainSplit
from evosearch.machine import device_of, torch_seeded
from evosearch.models.copying import copied
from evosearch.models.modes import evaluating
from evosearch.models.precision import Precision, fastest_numerics
from evosearch.seeding import Stream, generator, integer
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.surgery.slicing import Slice
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.scoring import working_numerics
from evosearch.tasks.task import Task
from evosearch.training.checkpoint import Checkpoint
from evosearch.training.heads import holders_of_heads
from evosearch.training.objective import students_loss
from evosearch.training.optimizers import Optimizer, resolve_optimizer
from evosearch.training.parts import Moment, Part
from evosearch.training.schedule import require_pieces
from evosearch.training.trainer import Training


class ElasticConfig(BaseModel):
    """How elastic weights are trained.

    Attributes:
        epochs: passes over the train split.
        batch_size: images per step, at most.
        lr: SGD's learning rate in the first step, of which Muon takes a share; a cosine takes it
            to zero.
        optimizer: as in `[finetune]`.
        accumulate: pieces that a batch goes through the networks in, as in `[train]`.
        temperature: softens the logits of both networks.
        alpha: weight of the softened logits against the labels: 0 is labels only, 1 none. Set it
            to 0 where the task's output is no logits.
        plans: slices in a step: the smallest, and drawn ones.
        palette: drawn plans in all, beside the smallest. On a CPU each costs code that is
            generated for its shapes.
        spread: how far the drawn plans are from the one of least two-step error: the standard
            deviation of the logarithm of the factors that groups' errors are multiplied with.
        precision: what the forward passes compute in, as in `[finetune]`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.05, gt=0)
    optimizer: Optimizer = "sgd"
    accumulate: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.9, ge=0, le=1)
    plans: int = Field(default=3, ge=1)
    palette: int = Field(default=24, ge=0)
    spread: float = Field(default=1.0, ge=0)
    precision: Precision = "auto"

    @property
    def weight_decay(self) -> float:
        """None: plans use what weights change by, which a pull of the weights to zero is not."""
        return 0.0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        require_pieces(self, "elastic")
        return self


def train_elastic(
    base: nn.Module,
    groups: Sequence[ChannelGroup],
    palette: Sequence[Mask],
    train: TrainSplit,
    config: ElasticConfig,
    seed: int,
    *,
    start: Callable[[Mask], nn.Module],
    task: Task = CLASSIFICATION,
    progress: Checkpoint | None = None,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> nn.Module:
    """Returns a copy of a network whose slices were trained on the network's own outputs.

    What a plan gains by it is what the copy's weights differ by from the network's, at the
    channels that the plan keeps. The last epoch is kept: no score chooses. BatchNorm statistics
    are the network's, which are no slice's: they have to be estimated for each. The weights are a
    function of the network, the palette, what its plans begin as, the data, the config, the seed
    and the number of threads.

    Args:
        base: the teacher, and what the weights begin as; not changed.
        groups: its channel groups.
        palette: the plans, the one that every step takes first.
        train: what is learned from.
        config: the `[elastic]` section.
        seed: of plans, order and augmentation.
        start: a plan -> the compact network that its slice begins as; called once for each.
        task: whose loss is the hard part, and which output is compared.
        progress: keeps how far this went, epoch by epoch, so that one that was killed goes on
            and ends as it would have; None keeps nothing.
        on_epoch: told how many epochs are done, and once before the first that is left.

    Raises:
        InputError: the outputs do not fit the task, or are none that it compares, where `alpha`
            is not 0.
        EvaluationError: a loss is no longer finite.
        StorageError: the progress cannot be written.
    """
    place, elastic = device_of(base), copied(base)
    fastest = fastest_numerics(place, precision=config.precision)
    numerics, _ = working_numerics(base, train, fastest, task=task)
    heads = holders_of_heads(base, train, task)
    slices = [
        Slice(elastic, groups, mask, start=start(mask), evaluating=heads) for mask in palette
    ]
    sandwich = Sandwich(base, slices, config, seed, task)
    rng = torch.Generator().manual_seed(integer(seed, Stream.ELASTIC, "images"))
    dropout = torch_seeded(integer(seed, Stream.ELASTIC, "dropout"), place)
    with dropout, evaluating(base):
        training = Training(
            elastic,
            train,
            config,
            sandwich.loss,
            rng,
            numerics=numerics,
            optimizer=resolve_optimizer(config.optimizer, str(place)),
            parts=[sandwich],
        )
        if progress is not None and (saved := progress.load()) is not None:
            training.restore(saved)
        on_epoch(training.done)
        for _ in training.epochs():
            if progress is not None:
                progress.save(training.state())
            on_epoch(training.done)
    return elastic.eval()


@final
class Sandwich(Part):
    """The plans of every step, and their mean distillation loss.

    Which plans a step takes follows from the seed and the step alone, so there is no state.
    """

    def __init__(
        self,
        base: nn.Module,
        slices: Sequence[Slice],
        config: ElasticConfig,
        seed: int,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Takes the teacher, in evaluation mode, and slices of the network that learns.

        Args:
            base: the teacher.
            slices: the one that every step takes first.
            config: the `[elastic]` section.
            seed: of the plans that are drawn.
            task: whose loss is the hard part, and which output is compared.
        """
        self._base, self._slices, self._config = base, slices, config
        self._seed, self._task = seed, task
        self._step = list(slices[:1])

    def before_step(self, moment: Moment) -> None:
        """Takes the first plan, and draws the others; all of them, where there are no more."""
        rng = generator(self._seed, Stream.ELASTIC, "plans", moment.step)
        drawn = 1 + rng.permutation(len(self._slices) - 1)[: self._config.plans - 1]
        self._step = [self._slices[index] for index in (0, *drawn)]

    def loss(self, images: Inputs, labels: Labels) -> Tensor:
        """Returns the objective of a batch: the mean over the step's plans.

        Raises:
            InputError: the task cannot compare such outputs, but `alpha` is not 0.
        """
        task, config = self._task, self._config
        target = None
        if config.alpha:
            with torch.no_grad():
                target = task.outputs(call(self._base, images))
        losses = [
            students_loss(
                network,
                images,
                labels,
                target,
                temperature=config.temperature,
                alpha=config.alpha,
                task=task,
                section="elastic",
            )
            for network in self._step
        ]
        return torch.stack(losses).mean()
