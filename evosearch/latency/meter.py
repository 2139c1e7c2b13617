"""A meter: times networks of a space against its base network, under stated conditions."""

from functools import cached_property
from typing import final

import torch
from torch import nn

from evosearch.calling import Inputs, inputs_of
from evosearch.errors import InputError
from evosearch.latency.model import LatencyConfig
from evosearch.latency.runtimes import RUNTIMES, require_runtime, runtime_versions
from evosearch.latency.stopwatch import Runner, Stopwatch, compare, torch_stopwatch
from evosearch.machine import device_name
from evosearch.models.build import ModelConfig
from evosearch.seeding import Stream, integer
from evosearch.space.mask import Mask
from evosearch.study.identity import Identity
from evosearch.study.timing import Conditions, Timing
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery

SECONDS = 1.5
"""That a network and the base network are timed in turn, about."""


@final
class Meter:
    """Times the compact networks of one base network."""

    def __init__(
        self,
        *,
        model: nn.Module,
        section: ModelConfig,
        discovery: Discovery,
        identity: Identity,
        config: LatencyConfig,
        device: str,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Prepares to measure.

        Args:
            model: the base network, in eval mode, on the device.
            section: of the space file; has the shapes of the inputs.
            discovery: its groups and layers.
            identity: of the base network, with its graph and versions at least.
            config: runtime, batch and threads.
            device: torch's name of it.
            stopwatch: the clock; None is torch's.

        Raises:
            InputError: the runtime does not exist or is not installed, or the model takes several
                inputs, which the runtime cannot.
        """
        require_runtime(config.runtime, device)
        if RUNTIMES[config.runtime].format is not None and not section.takes_one_tensor:
            raise InputError(
                f"runtime {config.runtime!r} runs networks of one image tensor; [model] input has"
                " several, or names: choose another runtime"
            )
        self.model, self.discovery, self.config = model, discovery, config
        self.identity = identity
        self.conditions = Conditions(
            device=device_name(device),
            runtime=config.runtime,
            batch=config.batch,
            threads=config.threads,
            versions=runtime_versions(config.runtime),
        )
        self.stopwatch = stopwatch or torch_stopwatch(config.threads)
        rng = torch.Generator().manual_seed(integer(0, Stream.LATENCY, "images"))
        self.images = inputs_of(
            section.inputs(lambda s: torch.randn(config.batch, *s, generator=rng).to(device))
        )

    def runner(self, module: nn.Module, images: Inputs) -> Runner:
        """Returns what runs a module once in the runtime."""
        return RUNTIMES[self.config.runtime].prepare(module, images, self.config.threads)

    @cached_property
    def _base(self) -> Runner:
        return self.runner(self.model, self.images)

    def compact(self, mask: Mask) -> nn.Module:
        """Returns the network that a mask leaves; its weights do not matter here."""
        return compact(self.model, self.discovery.space.groups, mask, share=True)

    def time_network(self, network: nn.Module, seconds: float = SECONDS) -> Timing:
        """Times a network, in eval mode on the device, against the base network."""
        return compare(self.runner(network, self.images), self._base, self.stopwatch, seconds)

    def time(self, mask: Mask, seconds: float = SECONDS) -> Timing:
        """Times the network that a mask leaves against the base network."""
        return self.time_network(self.compact(mask), seconds)
