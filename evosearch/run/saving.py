"""The artifact of a network, trained or not: its files, and what its card always says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from evosearch.export.artifact import Artifact
from evosearch.export.card import network_json
from evosearch.machine import environment
from evosearch.refit.building import Builder
from evosearch.run.compared import Compared
from evosearch.run.config import RunConfig
from evosearch.run.subject import Subject
from evosearch.space.mask import Mask
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study

UNTRAINED = (
    "not trained: the weights that stay were refitted by least squares to the base network's"
    " layers, and BatchNorm statistics measured, on calibration images"
)
"""The note of a network that was cut and no more."""
ELASTIC = (
    "not trained by itself: the weights that stay were refitted by least squares to the base"
    " network's layers on calibration images, and changed by what elastic weights learned before"
    " the search, for many plans at once, from the base network's outputs"
)
"""The note of a network that elastic weights changed, and that was cut and no more."""
AVERAGED = "its weights are the mean over the last quarter of the steps"
SELECTED = "search accuracy is optimistic: the search was selected on that split"


def save_artifact(
    target: Path,
    config: RunConfig,
    subject: Subject,
    compared: Compared,
    *,
    networks: Sequence[NamedNetwork],
    card: Mapping[str, Any],
) -> Artifact:
    """Writes the artifact of a network.

    Args:
        target: its folder.
        config: what was asked for.
        subject: the base network, and its space.
        compared: the network that came of it.
        networks: what stands on the card, the network itself last.
        card: what else its card says.

    Raises:
        StorageError: it cannot be written.
        EvosearchError: what was written is not the network; nothing is left behind.
    """
    space, section = subject.discovery.space, config.space.model
    return Artifact.save(
        target,
        network=compared.network,
        base=subject.model,
        mask=compared.mask,
        model_section=section.model_dump(mode="json", exclude_none=True),
        space_folder=Path(config.folder),
        card={
            "space_digest": space.digest,
            "networks": [network_json(network, space.base_cost) for network in networks],
            "environment": environment(torch.get_num_threads()),
            "about": about(config, subject),
            "kept": {name: [int(bits.sum()), bits.size] for name, bits in compared.mask.items()},
            **card,
        },
    )


def about(config: RunConfig, subject: Subject) -> dict[str, Any]:
    """Returns what a card says of the model and the data that a network is of."""
    section, data = config.space.model, subject.data
    splits = ("train", "calibration", "search", "confirmation")
    return {
        "task": config.space.task.name,
        "build": section.build,
        "input": [list(shape) for shape in section.input_shapes],
        "data": config.space.data.name,
        "images": {name: len(getattr(data, name)) for name in splits},
    }


def cut_note(builder: Builder, mask: Mask) -> str:
    """Returns what the card says of how a network was made that was not trained by itself."""
    return ELASTIC if builder.is_elastic(mask) else UNTRAINED


def opened_note(opened: int) -> str:
    """Returns what the card says of how often a run's test split was opened."""
    return f"the test split was opened {opened} times in this run, once for each named network"


def from_run(folder: Path, study: Study) -> dict[str, Any]:
    """Returns where a network of a run is from, as its card has it."""
    header = study.header
    return {"run": str(folder), "strategy": header.strategy, "seed": header.seed}
