"""What a run measures on its base network before the first trial, and who measures."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from evosearch.errors import EvosearchError
from evosearch.run.config import SearchConfig
from evosearch.run.subject import Subject
from evosearch.search.evaluator import MaskEvaluator
from evosearch.search.measurements import Measurements
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Bound, Budget
from evosearch.space.knowledge import Knowledge, SensitivityCurve
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.strategies.baselines import uniform_mask
from evosearch.strategies.two_step import TwoStep
from evosearch.study.records import Reference
from evosearch.study.trial import Evaluation
from evosearch.training.distillation import FinetuneConfig, distil_blindly

BASELINE_POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where in a range of budgets the baseline is measured."""

OnStage = Callable[[str], None]


def make_evaluator(
    config: SearchConfig, subject: Subject, finetune: FinetuneConfig
) -> MaskEvaluator:
    """Returns the evaluator of a run, its network on the run's device."""
    return MaskEvaluator(
        model=subject.model.to(config.device),
        discovery=subject.discovery,
        calibration=subject.data.calibration,
        search=subject.data.search,
        config=config.evaluator,
        seed=config.seed,
        task=subject.task,
        recover=_recovery(config, subject, finetune),
    )


def criteria_of(config: SearchConfig) -> list[str]:
    """Returns the importance criteria that a run reads."""
    return sorted({"l1", config.criterion})


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
    fixed: dict[str, int | str] = {"epochs": 1, "precision": precision}
    if finetune.optimizer == "auto":
        fixed["optimizer"] = "muon" if precision == "bfloat16" else "sgd"
    short = finetune.model_copy(update=fixed)

    def recover(network: nn.Module) -> None:
        distil_blindly(subject.model, network, part, short, config.seed, task=subject.task)

    return recover


def measure_sensitivity(
    space: SearchSpace,
    knowledge: Knowledge,
    keep_ratios: Sequence[float],
    measurements: Measurements,
    on_stage: OnStage,
) -> Knowledge:
    """Measures how the search loss rises when one group alone is cut.

    Not the calibration loss: the weights that stay are refitted on those images.

    Args:
        space: what is searched.
        knowledge: whose Gram matrices choose the channels that stay.
        keep_ratios: shares of each group's channels to probe.
        measurements: of masks on the search split.
        on_stage: told how far it is.

    Returns:
        The knowledge, and the curves.

    Raises:
        EvosearchError: a probe failed.
    """
    subset, full = TwoStep(space, knowledge.gram).subset, space.full_mask()
    widths = {}
    for group in space.groups:
        legal = np.array(group.legal_widths())
        wanted = {int(legal[np.abs(legal - r * group.size).argmin()]) for r in keep_ratios}
        widths[group.name] = np.array([*sorted(wanted - {group.size}), group.size], dtype=np.int64)
    probes = [(name, int(width)) for name, own in widths.items() for width in own[:-1]]
    masks = [full, *(Mask({**full, name: subset(name, width)}) for name, width in probes)]
    losses = []
    for number, measured in enumerate(measurements.of(masks, measurements.images)):
        if measured.scores is None:
            name, width = probes[number - 1] if number else ("none", 0)
            raise EvosearchError(
                f"sensitivity of {name!r} at {width} channels: {measured.failure}"
            )
        losses.append(measured.scores.score.loss)
        on_stage(f"sensitivity of each group: {number} of {len(probes)} probes")
    base, rest = losses[0], iter(losses[1:])
    curves = {}
    for name, own in widths.items():
        found = [next(rest) for _ in own[:-1]]
        curves[name] = SensitivityCurve(widths=own, loss_increase=np.array([*found, base]) - base)
    return replace(knowledge, sensitivity=curves)


def measure_references(
    evaluator: MaskEvaluator,
    space: SearchSpace,
    budget: Budget,
    base: Evaluation,
    knowledge: Knowledge,
) -> tuple[Reference, ...]:
    """Returns the base network, and measures the lowest-L1 uniform plans beside the search."""
    references = [
        Reference(name="base", mask=space.full_mask(), cost=space.base_cost, evaluation=base)
    ]
    for size in _baseline_budgets(space, budget):
        mask = uniform_mask(space, size, knowledge.scores["l1"])
        references.append(
            Reference(
                name="lowest-L1 uniform",
                mask=mask,
                cost=space.cost(mask),
                evaluation=evaluator.evaluate_plain(mask),
            )
        )
    return tuple(references)


def _baseline_budgets(space: SearchSpace, budget: Budget) -> list[Budget]:
    if budget.least_accuracy is not None and budget.macs is not None:
        least = space.smallest_cost.macs
        budget = Budget(macs=Bound(low=least, high=budget.macs.high))
    return [budget.at(x) for x in (BASELINE_POSITIONS if budget.is_range else (1.0,))]
