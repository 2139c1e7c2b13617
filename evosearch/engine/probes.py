"""Probes before a search: the loss when one group alone is cut, and what a rung costs."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from evosearch.engine.measurements import Measurements
from evosearch.errors import EvosearchError
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget
from evosearch.space.knowledge import Knowledge, SensitivityCurve
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.stages import Countdown, OnStage
from evosearch.strategies.base import RungPlan
from evosearch.strategies.fixed_plans import random_mask
from evosearch.strategies.two_step import TwoStep
from evosearch.study.rungtimes import RungTimes
from evosearch.study.trial import Rung

TIMED = 3
"""Random candidates that a rung is timed on; their median counts."""


def measure_sensitivity(
    space: SearchSpace,
    knowledge: Knowledge,
    keep_ratios: Sequence[float],
    measurements: Measurements,
    on_stage: OnStage,
    *,
    images: int,
) -> Knowledge:
    """Measures how the search loss rises when one group alone is cut.

    Not the calibration loss: the weights that stay are refitted on those images.

    Args:
        space: what is searched.
        knowledge: whose Gram matrices choose the channels that stay.
        keep_ratios: shares of each group's channels to probe.
        measurements: of masks on the search split.
        on_stage: told how far it is.
        images: from the first on, that a probe is scored on; there may be fewer.

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
    images = min(images, measurements.images)
    losses = []
    countdown = Countdown(on_stage, "sensitivity of each group", len(probes), "probes")
    for number, measured in enumerate(measurements.scores(masks, images)):
        if measured.scores is None:
            name, width = probes[number - 1] if number else ("none", 0)
            raise EvosearchError(
                f"sensitivity of {name!r} at {width} channels: {measured.failure}"
            )
        losses.append(measured.scores.score.loss)
        if number:
            countdown.done(number)
    base, rest = losses[0], iter(losses[1:])
    curves = {}
    for name, own in widths.items():
        found = [next(rest) for _ in own[:-1]]
        curves[name] = SensitivityCurve(widths=own, loss_increase=np.array([*found, base]) - base)
    return replace(knowledge, sensitivity=curves)


def time_rungs(
    space: SearchSpace,
    budget: Budget,
    plans: Sequence[RungPlan],
    measurements: Measurements,
    seed: int,
    on_stage: OnStage,
) -> RungTimes:
    """Measures what a candidate takes on the compensated error and on the rung behind it.

    The other rungs build a candidate once and score it on growing parts of the search split: none
    of them costs more than the next one.

    Args:
        space: what is searched.
        budget: that candidates meet.
        plans: the rungs between the strategy's own and the last, in order.
        measurements: of masks on the search split.
        seed: the run's.
        on_stage: told that it begins.
    """
    own = [plan.rung for plan in plans]
    if Rung.COMPENSATED not in own:
        return RungTimes(seconds={})
    on_stage("what the rungs of the ladder cost")
    rng = generator(seed, Stream.EVALUATION, "rungs")
    masks = [random_mask(space, budget, rng) for _ in range(TIMED)]
    behind = plans[own.index(Rung.COMPENSATED) + 1 :]
    following = behind[0].rung if behind else Rung.FULL
    images = behind[0].images(measurements.images) if behind else measurements.images
    taken = {
        Rung.COMPENSATED: measurements.seconds(masks, None),
        following: measurements.seconds(masks, images),
    }
    return RungTimes(seconds={rung: median(found) for rung, found in taken.items() if found})
