"""A bench: networks of the same inputs timed in turn in one runtime, under stated conditions."""

from typing import final

import torch
from torch import nn

from evosearch.calling import Inputs, inputs_of
from evosearch.errors import InputError
from evosearch.latency.model import LatencyConfig
from evosearch.latency.runtimes import RUNTIMES, require_runtime, runtime_versions
from evosearch.latency.stopwatch import Runner, Stopwatch, torch_stopwatch
from evosearch.machine import device_name
from evosearch.models.build import ModelConfig
from evosearch.seeding import Stream, integer
from evosearch.study.timing import Conditions

SECONDS = 1.5
"""That a network and the base network are timed in turn, about."""


@final
class Bench:
    """What networks run on while they are measured: runtime, images and clock.

    Attributes:
        config: runtime, batch and threads.
        conditions: that hold for what is measured.
        stopwatch: the clock.
        images: one batch of random ones, on the device.
    """

    def __init__(
        self,
        section: ModelConfig,
        config: LatencyConfig,
        device: str,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Prepares to measure.

        Args:
            section: of the space file; has the shapes of the inputs.
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
        self.config = config
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

    def runner(self, module: nn.Module, images: Inputs | None = None) -> Runner:
        """Returns what runs a module once in the runtime, on the batch where nothing is given."""
        given = self.images if images is None else images
        return RUNTIMES[self.config.runtime].prepare(module, given, self.config.threads)
