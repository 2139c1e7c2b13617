"""The measurer of a run: what its aim wants to know of networks beyond their trials."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

from torch import nn

from evosearch.aims.base import Metrics
from evosearch.machine import torch_threads
from evosearch.models.weights import weights_digest
from evosearch.run.freshtiming import time_fresh
from evosearch.run.preparation import Prepared
from evosearch.space.mask import Mask
from evosearch.study.accuracy_certificate import ConfirmedDrop, ConfirmedNetwork, claims_beside
from evosearch.study.certificate import add_claim, load_claims
from evosearch.study.pairedgain import PairedGain
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

    def confirmed(
        self, name: str, network: nn.Module, config: Mapping[str, Any] | None
    ) -> ConfirmedNetwork | None:
        """Returns by how much a network is worse than the base network, which the run records.

        Args:
            name: of the network.
            network: finished.
            config: how it was trained after the search, as JSON; None where it was not.

        Returns:
            The claim, the one that the run has where it is of this network; None without images,
            and of a pooled metric, whose drop no exact bound is known of.
        """
        if not self._has_bounds:
            return None
        weights, known = weights_digest(network), load_claims(self._folder)
        for claim in known:
            if isinstance(claim, ConfirmedNetwork) and claim.weights == weights:
                return claim
        new = ConfirmedNetwork(
            name=name,
            weights=weights,
            config=config,
            drop=ConfirmedDrop.of(self._base_metrics, self._metrics(network)),
            earlier=claims_beside(known, weights),
        )
        add_claim(self._folder, new)
        return new

    def gain(self, network: nn.Module, other: nn.Module) -> PairedGain | None:
        """Returns by how much a network is better than another; None as of `confirmed`."""
        if not self._has_bounds:
            return None
        return PairedGain.of(self._metrics(other), self._metrics(network))

    @property
    def _has_bounds(self) -> bool:
        pooled = self._prepared.subject.task.measure.pooled
        return self.confirmation_images > 0 and pooled is None

    @cached_property
    def _base_metrics(self) -> Metrics:
        return self._metrics(self._prepared.subject.model)

    def _metrics(self, network: nn.Module) -> Metrics:
        subject = self._prepared.subject
        return image_scores(network, subject.data.confirmation, task=subject.task).metrics
