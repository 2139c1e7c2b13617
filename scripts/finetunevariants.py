"""Variants of a fine-tuning: settings of `[finetune]`, and what evosearch does not have."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.calling import call
from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.machine import device_of
from evosearch.models.modes import evaluating
from evosearch.models.precision import fastest_numerics
from evosearch.seeding import Stream, integer
from evosearch.tasks.scoring import working_numerics
from evosearch.tasks.task import Task
from evosearch.training.averaging import Averaging
from evosearch.training.bestepoch import BestEpoch
from evosearch.training.distillation import FinetuneConfig
from evosearch.training.objective import distillation_loss
from evosearch.training.parts import Host, Moment, Part
from evosearch.training.trainer import Training

SPAN = 0.1
"""Of all steps, those that an exponential average remembers."""
DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a fine-tuning has that the default has not.

    Attributes:
        settings: keys of `[finetune]`.
        smoothing: share of each label that is spread evenly over the classes.
        mixing: how each image is mixed with another of its batch, at a share drawn evenly for the
            batch (Zhang et al. 2018, arXiv 1710.09412; Yun et al. 2019, arXiv 1905.04899).
        exponential: whether an exponential average of the weights competes with the best epoch.
        restart: share of the epochs after which learning rates begin anew, with fresh momentum
            (Loshchilov and Hutter 2017, arXiv 1608.03983).
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    smoothing: float = 0.0
    mixing: Literal["mixup", "cutmix"] | None = None
    exponential: bool = False
    restart: float | None = None


VARIANTS = {
    DEFAULT: Variant(),
    "muon": Variant(settings={"optimizer": "muon"}),
    "average": Variant(settings={"average": True}),
    "muon, average": Variant(settings={"optimizer": "muon", "average": True}),
    "exponential average": Variant(exponential=True),
    "alpha 0": Variant(settings={"alpha": 0.0}),
    "alpha 1": Variant(settings={"alpha": 1.0}),
    "T 1": Variant(settings={"temperature": 1.0}),
    "T 2": Variant(settings={"temperature": 2.0}),
    "T 8": Variant(settings={"temperature": 8.0}),
    "lr 0.02": Variant(settings={"lr": 0.02}),
    "lr 0.1": Variant(settings={"lr": 0.1}),
    "muon, lr 0.02": Variant(settings={"optimizer": "muon", "lr": 0.02}),
    "muon, lr 0.1": Variant(settings={"optimizer": "muon", "lr": 0.1}),
    "restart": Variant(restart=1 / 3),
    "smoothing 0.1": Variant(smoothing=0.1),
    "alpha 0, smoothing 0.1": Variant(settings={"alpha": 0.0}, smoothing=0.1),
    "mixup": Variant(mixing="mixup"),
    "cutmix": Variant(mixing="cutmix"),
}


class Exponential(Part):
    """An exponential average of the weights, which begins with those before the first step."""

    def joined(self, training: Host) -> None:
        """See `Part.joined`."""
        self._training = training
        self._mean = [weight.detach().clone() for weight in training.model.parameters()]

    def before_step(self, moment: Moment) -> None:
        """Notes what a step counts for: it is forgotten over a share of all."""
        self._share = 1 / max(1.0, SPAN * moment.epoch_steps * moment.epochs)

    @torch.no_grad()
    def after_step(self, images: int) -> None:  # noqa: ARG002  (the protocol's)
        """Takes the weights into the average."""
        for mean, weight in zip(self._mean, self._training.model.parameters(), strict=True):
            mean.lerp_(weight, self._share)

    @torch.no_grad()
    def take_over(self) -> None:
        """Gives the model the average in place of its weights, and the statistics of it."""
        for mean, weight in zip(self._mean, self._training.model.parameters(), strict=True):
            weight.copy_(mean)
        self._training.measure_norms()


def mixed(images: Tensor, mixing: str, rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Mixes each image of a batch with another.

    Args:
        images: `(images, channels, height, width)`; not changed.
        mixing: "mixup" adds them up, "cutmix" puts a part of one into the other.
        rng: draws which, and how much.

    Returns:
        The mixed images, the position of each one's other, and the share of the first.
    """
    others = torch.randperm(len(images), generator=rng)
    share = float(torch.rand((), generator=rng))
    if mixing == "mixup":
        return share * images + (1 - share) * images[others], others, share
    height, width = images.shape[-2:]
    side = (1 - share) ** 0.5
    centre = torch.rand(2, generator=rng).tolist()
    (top, bottom), (left, right) = (
        (max(0, round((at - side / 2) * size)), min(size, round((at + side / 2) * size)))
        for at, size in zip(centre, (height, width), strict=True)
    )
    result = images.clone()
    result[..., top:bottom, left:right] = images[others][..., top:bottom, left:right]
    return result, others, 1 - (bottom - top) * (right - left) / (height * width)


def cycles(epochs: int, restart: float | None) -> tuple[int, ...]:
    """Returns the epochs between restarts; of one epoch there is no restart."""
    if restart is None or epochs < 2:
        return (epochs,)
    first = max(1, round(restart * epochs))
    return first, epochs - first


def tuned(
    variant: Variant,
    teacher: nn.Module,
    student: nn.Module,
    train: TrainSplit,
    search: SearchSplit,
    *,
    epochs: int,
    seed: int,
    task: Task,
) -> int:
    """Fine-tunes a student as `distil` does, but for what a variant has, and returns its epoch.

    Args:
        variant: what is other than the default.
        teacher: not changed.
        student: changed in place.
        train: what is learned from.
        search: what the best epoch is chosen by.
        epochs: in all.
        seed: of all that is drawn.
        task: classification.
    """
    config = FinetuneConfig.model_validate({"epochs": epochs, **variant.settings})
    fastest = fastest_numerics(device_of(student), precision=config.precision)
    numerics, _ = working_numerics(teacher, train, fastest, task=task)
    drawing, mixing = (
        torch.Generator().manual_seed(integer(seed, Stream.FINETUNING, name))
        for name in ("images", "mixing")
    )

    def smoothed(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(
            output, target, reduction="none", label_smoothing=variant.smoothing
        )

    learned = replace(task, loss=smoothed) if variant.smoothing else task

    def objective(images: Tensor, labels: Tensor) -> Tensor:
        shares = [(1.0, labels)]
        if variant.mixing is not None:
            images, others, share = mixed(images, variant.mixing, mixing)
            shares = [(share, labels), (1 - share, labels[others])]
        wanted = None
        if config.alpha:
            with torch.no_grad():
                wanted = task.outputs(call(teacher, images))
        output = task.outputs(call(student, images))
        losses = [
            share
            * distillation_loss(
                output,
                wanted,
                target,
                temperature=config.temperature,
                alpha=config.alpha,
                task=learned,
            )
            for share, target in shares
        ]
        return torch.stack(losses).sum()

    best = BestEpoch(student, search, epochs, None, task)
    average = Exponential() if variant.exponential else Averaging() if config.average else None
    parts = [best] if average is None else [best, average]
    with evaluating(teacher):
        for length in cycles(epochs, variant.restart):
            training = Training(
                student,
                train,
                config.model_copy(update={"epochs": length}),
                objective,
                drawing,
                numerics=numerics,
                optimizer=config.optimizer,
                parts=parts,
            )
            if not best.history:
                best.record(None)
            for loss in training.epochs():
                training.measure_norms()
                last = len(best.history) == epochs
                best.record(loss, average.take_over if average is not None and last else None)
    best.keep_best()
    return best.epoch
