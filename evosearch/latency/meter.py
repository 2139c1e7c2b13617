"""A meter: times networks of a space against its base network, under stated conditions."""

from functools import cached_property
from typing import final

from torch import nn

from evosearch.latency.bench import SECONDS, Bench
from evosearch.latency.model import LatencyConfig
from evosearch.latency.stopwatch import Runner, Stopwatch, compare
from evosearch.models.build import ModelConfig
from evosearch.space.mask import Mask
from evosearch.study.identity import Identity
from evosearch.study.timing import Timing
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery


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
        self.model, self.discovery, self.identity = model, discovery, identity
        self.bench = Bench(section, config, device, stopwatch)

    @cached_property
    def _base(self) -> Runner:
        return self.bench.runner(self.model)

    def compact(self, mask: Mask) -> nn.Module:
        """Returns the network that a mask leaves; its weights do not matter here."""
        return compact(self.model, self.discovery.space.groups, mask, share=True)

    def time_network(self, network: nn.Module, seconds: float = SECONDS) -> Timing:
        """Times a network, in eval mode on the device, against the base network."""
        return compare(self.bench.runner(network), self._base, self.bench.stopwatch, seconds)

    def time(self, mask: Mask, seconds: float = SECONDS) -> Timing:
        """Times the network that a mask leaves against the base network."""
        return self.time_network(self.compact(mask), seconds)
