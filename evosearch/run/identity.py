"""The identity of a run's subject, from the contents of its model, data and task."""

import json
from hashlib import sha256
from pathlib import Path

from torch import nn

from evosearch.callables import code_digest
from evosearch.calling import Example
from evosearch.data.contents import listed_images, listed_test_images, preparation_digest
from evosearch.data.splits import SearchData
from evosearch.machine import library_versions
from evosearch.models.build import ModelConfig
from evosearch.models.weights import weights_digest
from evosearch.run.spacefile import SpaceFile
from evosearch.study.identity import ARITHMETIC, Identity, Part
from evosearch.study.imagelist import list_digest
from evosearch.surgery.tracing.graph_digest import graph_digest
from evosearch.tasks.config import task_digest


def identify_model(
    config: ModelConfig, folder: Path, model: nn.Module, example: Example
) -> Identity:
    """Returns the identity of a network alone: its graph, its weights, and the versions.

    Of a network that is traced in part, the code that lies outside counts as it is written.

    Args:
        config: the `[model]` section.
        folder: where the space file lies.
        model: with the weights that are meant.
        example: a batch of its inputs.

    Raises:
        InputError: the model, or a part, cannot be exported.
    """
    graph = graph_digest(model, example, config.parts)
    if config.parts:
        code = code_digest(config.build, folder, "[model] build")
        said = json.dumps([graph, code, config.parts, config.kwargs], sort_keys=True)
        graph = sha256(said.encode()).hexdigest()[:32]
    parts = {
        Part.GRAPH: graph,
        Part.WEIGHTS: weights_digest(model),
        Part.EVOSEARCH: ARITHMETIC,
        **{Part(name): version for name, version in library_versions().items()},
    }
    return Identity(parts=parts)


def identify(
    file: SpaceFile,
    folder: Path,
    model: nn.Module,
    example: Example,
    data: SearchData | None,
) -> Identity:
    """Returns the identity of what a space file names, as it is now.

    Args:
        file: the space file's content.
        folder: where it lies.
        model: the network that it builds, with the weights that are meant.
        example: a batch of its inputs.
        data: the splits that it names; without them the identity has no images, which are all
            read where they are in no files.

    Raises:
        InputError: something that it names cannot be read, or the model cannot be exported.
    """
    parts = {
        **identify_model(file.model, folder, model, example).parts,
        Part.PREPARATION: preparation_digest(file.data),
        Part.TASK: task_digest(file.task, folder),
    }
    if data is None:
        return Identity(parts=parts)
    images = {
        Part.TRAIN: listed_images(data.train),
        Part.CALIBRATION: listed_images(data.calibration),
        Part.SEARCH: listed_images(data.search),
        Part.CONFIRMATION: listed_images(data.confirmation),
        Part.TEST: listed_test_images(file.data, folder, like=data.train),
    }
    digests = {part: list_digest(found) for part, found in images.items()}
    return Identity(parts=parts | digests, images=images)
