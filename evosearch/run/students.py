"""The student of a distillation: the network of a plan as its training begins."""

import copy
from dataclasses import dataclass
from typing import final

from torch import nn

from evosearch.run.compared import Compared
from evosearch.run.preparation import Prepared
from evosearch.surgery.discovery import Discovery
from evosearch.surgery.narrowing import narrow
from evosearch.training.distillation import FinetuneConfig
from evosearch.training.reparametrised import leaves_zeros, nonzero_macs, require_fit
from evosearch.training.towards import Goal
from evosearch.training.wiring import Wired


@final
@dataclass(frozen=True, kw_only=True)
class Student:
    """What a distillation changes.

    Attributes:
        network: to be trained in place.
        discovery: its channel groups; None of one with implants, which are in none.
        goal: the channels that it has in the end, where it begins with others.
    """

    network: nn.Module
    discovery: Discovery | None
    goal: Goal | None = None


def student_of(prepared: Prepared, compared: Compared, config: FinetuneConfig) -> Student:
    """Returns what the network of a plan begins its distillation as.

    That is the network as it was cut; with a pace, a copy of the base network, on whose way to
    the plan the channels go in the order of the run's importance criterion.
    """
    discovery = prepared.subject.discovery
    if config.implants is not None:
        return Student(network=copy.deepcopy(compared.network), discovery=None)
    if config.pace is None:
        network = copy.deepcopy(compared.network)
        return Student(network=network, discovery=narrow(discovery, compared.mask))
    scores = prepared.knowledge.comparable[prepared.config.search.criterion]
    return Student(
        network=copy.deepcopy(prepared.subject.model),
        discovery=discovery,
        goal=Goal(mask=compared.mask, scores=scores),
    )


def require_kernels_fit(discovery: Discovery, compared: Compared, config: FinetuneConfig) -> None:
    """Checks that the network of a plan can have the kernels of a config.

    Args:
        discovery: of the whole network.
        compared: the network, as it was cut.
        config: names the kernels.

    Raises:
        InputError: it cannot; names the layer.
    """
    if config.kernels is not None:
        narrowed = narrow(discovery, compared.mask)
        require_fit(config.kernels, Wired.of(compared.network, narrowed))


def nonzero_json(
    discovery: Discovery, compared: Compared, config: FinetuneConfig
) -> dict[str, int]:
    """Returns what the card of a network says of kernels that leave zeros; else nothing.

    Args:
        discovery: of the whole network.
        compared: the network, finished.
        config: how it was trained.
    """
    if config.kernels is None or not leaves_zeros(config.kernels) or not config.epochs:
        return {}
    macs = discovery.space.cost(compared.mask).macs
    return {"nonzero_macs": nonzero_macs(compared.network, discovery.layers, macs)}
