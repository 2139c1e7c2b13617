"""The identity of a run's subject, from the contents of its model, data and task."""

import json
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, NoneType

from torch import nn
from torch.utils import _pytree as pytree

from evosearch.callables import code_digest
from evosearch.calling import Example
from evosearch.data.contents import listed_images, listed_test_images, preparation_digest
from evosearch.data.splits import SearchData
from evosearch.livecode import value_digest
from evosearch.machine import library_versions
from evosearch.models.build import ModelConfig
from evosearch.models.weights import weights_digest
from evosearch.objects import is_object
from evosearch.run.spacefile import SpaceFile
from evosearch.study.identity import ARITHMETIC, Identity, Part
from evosearch.study.imagelist import list_digest
from evosearch.surgery.tracing.graph_digest import graph_digest
from evosearch.tasks.config import task_digest

_PLAIN = (NoneType, bool, int, float, str, type, FunctionType, BuiltinFunctionType)
"""What modules are set up with that is neither weights nor modules, in any nest."""


def identify_model(
    config: ModelConfig, folder: Path, model: nn.Module, example: Example
) -> Identity:
    """Returns the identity of a network alone: its graph, its weights, and the versions.

    Of a network that is traced in part, the code that lies outside counts as it is written; of
    one that is an object, the code of its modules, and what they are set up with.

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
        code = (
            value_digest(_outline(model))
            if is_object(config.build)
            else code_digest(config.build, folder, "[model] build")
        )
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


def _outline(model: nn.Module) -> dict[str, object]:
    """Returns what there is of a network beside its tensors: by module, its class and settings."""
    return {
        name: (
            type(module),
            {
                key: value
                for key, value in vars(module).items()
                if not key.startswith("_")
                and key != "training"
                and all(isinstance(leaf, _PLAIN) for leaf in pytree.tree_leaves(value))
            },
        )
        for name, module in model.named_modules()
    }
