"""Sensitivity probes: the rise of the loss when one group alone is cut."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evosearch.engine.measurements import Measurements
from evosearch.errors import EvosearchError
from evosearch.space.knowledge import Knowledge, SensitivityCurve
from evosearch.space.mask import Mask
from evosearch.space.space import SearchSpace
from evosearch.stages import Countdown, OnStage
from evosearch.strategies.two_step import TwoStep


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
