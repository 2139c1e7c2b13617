"""The evaluator of a run, from its subject and its settings."""

from collections.abc import Callable

import torch
from torch import nn

from evosearch.engine.evaluator import MaskEvaluator
from evosearch.run.config import SearchConfig
from evosearch.run.subject import Subject
from evosearch.seeding import Stream, generator
from evosearch.training.distillation import FinetuneConfig, distil_blindly


def make_evaluator(
    config: SearchConfig, subject: Subject, finetune: FinetuneConfig
) -> MaskEvaluator:
    """Returns the evaluator of a run, its networks on the run's device."""
    if subject.elastic is not None:
        subject.elastic.to(config.device)
    return MaskEvaluator(
        model=subject.model.to(config.device),
        discovery=subject.discovery,
        calibration=subject.data.calibration,
        search=subject.data.search,
        config=config.evaluator,
        seed=config.seed,
        task=subject.task,
        recover=_recovery(config, subject, finetune),
        elastic=subject.elastic,
    )


def criteria_of(config: SearchConfig) -> list[str]:
    """Returns the importance criteria that a run reads."""
    return sorted({"l1", *config.criteria})


def _recovery(
    config: SearchConfig, subject: Subject, finetune: FinetuneConfig
) -> Callable[[nn.Module], None] | None:
    """Returns the short recovery of candidates: one epoch of distillation on some images.

    What "auto" stands for is as the run began with it, whatever machine goes on.
    """
    count = config.evaluator.recovery_images
    if count == 0:
        return None
    train = subject.data.train
    order = generator(config.seed, Stream.EVALUATION, "recovery").permutation(len(train))
    part, precision = train.take(order[:count]), config.evaluator.precision
    numerics = config.evaluator.numerics(torch.device(config.device))
    fixed: dict[str, int | str] = {"epochs": 1, "precision": precision}
    if finetune.optimizer == "auto":
        fixed["optimizer"] = "muon" if precision == "bfloat16" else "sgd"
    short = finetune.model_copy(update=fixed)

    def recover(network: nn.Module) -> None:
        distil_blindly(
            subject.model,
            network,
            part,
            short,
            config.seed,
            numerics=numerics,
            task=subject.task,
        )

    return recover
