"""The measurer of a run: what its aim wants to know of networks beyond their trials."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

from torch import nn

from evosearch.aims.base import Metrics
from evosearch.machine import torch_threads
from evosearch.run.freshtiming import time_fresh
from evosearch.run.preparation import Prepared
from evosearch.space.mask import Mask
from evosearch.study.accuracy_certificate import ConfirmedDrop
from evosearch.study.timing import Conditions, Timing
from evosearch.tasks.scoring import image_scores

SECONDS = 8.0
"""That a trial is timed in turn with the base network, about."""


@final
class RunMeasurer:
    """Times networks, and confirms them; see `aims.base.Measurer`."""

    def __init__(self, folder: Path, prepared: Prepared) -> None:
        """Takes the folder of a run, and what it works with."""
        self._folder, self._prepared = folder, prepared

    @property
    def conditions(self) -> Conditions | None:
        """See `Measurer.conditions`."""
        model = self._prepared.latency
        return None if model is None else model.conditions

    @property
    def confirmation_images(self) -> int:
        """See `Measurer.confirmation_images`."""
        return len(self._prepared.subject.data.confirmation)

    def time(self, masks: Sequence[Mask]) -> list[Timing]:
        """See `Measurer.time`."""
        return time_fresh(self._folder, masks, SECONDS)[1]

    def confirm(self, mask: Mask) -> tuple[Metrics, Metrics]:
        """See `Measurer.confirm`: the network is the one that is shipped, before fine-tuning."""
        with torch_threads(self._prepared.config.search.threads):
            network = self._prepared.evaluator.builder.final(mask)
            return self._base_metrics, self._metrics(network)

    def drop_of(self, network: nn.Module) -> ConfirmedDrop | None:
        """Returns by how much a network is worse than the base network; None without images."""
        if not self.confirmation_images:
            return None
        return ConfirmedDrop.of(self._base_metrics, self._metrics(network))

    @cached_property
    def _base_metrics(self) -> Metrics:
        return self._metrics(self._prepared.subject.model)

    def _metrics(self, network: nn.Module) -> Metrics:
        subject = self._prepared.subject
        return image_scores(network, subject.data.confirmation, task=subject.task).metrics
