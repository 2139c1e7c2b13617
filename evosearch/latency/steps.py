"""Width steps: the numbers of channels that save time only together.

Runtimes pad widths to the blocks that they work in, so a single removal can save nothing. HALP
(Shen et al. 2022, arXiv 2210.06659, section 3.3) reads the size of a block off a latency table
and removes whole blocks; this does, group by group.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import final

import torch
from torch import Tensor, nn

from evosearch.calling import call
from evosearch.latency.journal import Journal
from evosearch.latency.meter import Meter
from evosearch.latency.stopwatch import Runner, compare
from evosearch.space.mask import ChannelGroup, Mask
from evosearch.stages import Countdown, OnStage
from evosearch.study.timing import Timing
from evosearch.surgery.cut_attention import projections_called

STEPS = (32, 16, 8, 4, 2)
"""Sizes of blocks that are looked for, largest first."""
PROBES = 3
"""Blocks at which each is looked for, from the last of a group down."""
FREE = 0.25
"""Half a block is free where it saves less than this share of what the whole block saves; it is
half of that where latency falls evenly, and nothing on a staircase."""
VISIBLE = 0.02
"""A block that saves less than this share of its layers' time is not seen."""
SECONDS = 0.05
"""That a layer is timed at two widths in turn, about."""

EVEN = 0.4
"""Half a block that saves more than this share of what the whole one does is no part of a step."""

_Part = tuple[nn.Module, Tensor]
_Parts = dict[str, _Part]


def find_steps(
    meter: Meter, journal: Journal, on_stage: OnStage = lambda _: None
) -> dict[str, int]:
    """Returns the step of every group whose channels save time only together.

    A group has a step where cutting half a block of so many channels saves its layers next to
    nothing of what cutting the whole block saves, the other widths being full.

    Args:
        meter: times layers in the runtime.
        journal: keeps what was timed.
        on_stage: told how far it is.
    """
    groups, found = meter.discovery.space.groups, _Saved(meter, journal)
    countdown = Countdown(on_stage, "widths at which latency falls", len(groups), "groups")
    steps = {}
    for number, group in enumerate(groups, 1):
        steps[group.name] = _step(found, group)
        countdown.done(number)
    return {name: step for name, step in steps.items() if step > 1}


def _step(saved: "_Saved", group: ChannelGroup) -> int:
    """Returns the largest step of a group, 1 where there is none."""
    for step in STEPS:
        ends = range(2 * step, group.size + 1, step)[-PROBES:]
        if not ends or step % group.multiple_of:
            continue
        half = whole = 0.0
        for count, end in enumerate(reversed(ends), 1):
            half += saved(group, end - step // 2, end)
            whole += saved(group, end - step, end)
            if whole > VISIBLE * count and half > EVEN * whole:
                break  # it falls evenly: other blocks would not tell otherwise
        if whole > VISIBLE * len(ends) and half < FREE * whole:
            return step
    return 1


@final
class _Saved:
    """What cutting groups saves of their layers' time; every layer is prepared once a width."""

    def __init__(self, meter: Meter, journal: Journal) -> None:
        self._meter, self._journal = meter, journal
        self._layers: dict[tuple[str, int], _Parts] = {}
        self._runners: dict[str, Runner] = {}

    def __call__(self, group: ChannelGroup, width: int, whole: int) -> float:
        """Returns the share of its layers' time that cutting a group to a width saves."""
        cut, kept = self._parts(group, width), self._parts(group, whole)
        before = after = 0.0
        for name, part in kept.items():
            timing = self._compared(cut[name], part)
            before += timing.base_seconds
            after += timing.ratio * timing.base_seconds
        return 1 - after / before if before else 0.0

    def _parts(self, group: ChannelGroup, width: int) -> _Parts:
        place = group.name, width
        if place not in self._layers:
            self._layers[place] = _layers(self._meter, group, width)
        return self._layers[place]

    def _compared(self, cut: _Part, kept: _Part) -> Timing:
        """Times one layer at two widths in turn; a pair of shapes is timed for all groups."""

        def measure() -> Timing:
            runners = self._runner(cut), self._runner(kept)
            return compare(*runners, self._meter.bench.stopwatch, SECONDS)

        return self._journal.timing(f"layer {_signature(*cut)} / {_signature(*kept)}", measure)

    def _runner(self, part: _Part) -> Runner:
        name = _signature(*part)
        if name not in self._runners:
            self._runners[name] = self._meter.bench.runner(*part)
        return self._runners[name]


def _signature(module: nn.Module, images: Tensor) -> str:
    return f"{module!r} {tuple(images.shape)}"


def _layers(meter: Meter, group: ChannelGroup, width: int) -> _Parts:
    """Returns the layers that a group's channels pass, cut to a width, and what each reads.

    Those whose weights are another module's own, as of attention that packs them, are left out.
    """
    space = meter.discovery.space
    full = space.full_mask()
    mask = Mask({**full, group.name: torch.arange(group.size).numpy() < width})
    network = meter.compact(mask)
    tensors = {member.tensor for member in group.members}
    modules = {
        layer.module
        for layer in meter.discovery.layers
        if layer.weight in tensors and layer.weight == f"{layer.module}.weight"
    }
    read: _Parts = {}

    def keep(name: str, module: nn.Module, images: Tensor) -> None:
        read.setdefault(name, (module, images))

    named: Mapping[str, nn.Module] = dict(network.named_modules())
    with ExitStack() as hooks, torch.inference_mode(), projections_called(network):
        for name in modules:
            handle = named[name].register_forward_pre_hook(
                lambda module, inputs, name=name: keep(name, module, inputs[0])
            )
            hooks.callback(handle.remove)
        call(network, meter.bench.images)
    return read
