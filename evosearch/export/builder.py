"""The builder of an artifact's network, of which the artifact has only the name.

A name is enough to run any code that is installed or lies in reach. So an artifact may name the
networks that evosearch and torchvision ship; any other builder is one that the user vouches for.
"""

from collections.abc import Callable
from inspect import isfunction
from pathlib import Path

from torch import nn

from evosearch.callables import MOVED
from evosearch.config import validated
from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.export.card import PLAN
from evosearch.models import zoo
from evosearch.models.build import ModelConfig, build_model
from evosearch.objects import is_object

BuildModel = Callable[[], nn.Module]
"""Makes the original, unpruned model; its weights do not matter."""


def named_builder(artifact: Artifact, folder: Path, *, trust: bool = False) -> BuildModel:
    """Returns the builder that an artifact names, without running anything of it.

    Its keyword arguments are JSON. The shipped networks take them as sizes and switches; of
    torchvision's, `weights` fetches a file from torchvision's own address.

    Args:
        artifact: the compact network on disk.
        folder: where a builder's file lies.
        trust: whether it may be other code than a network that evosearch or torchvision ships.

    Raises:
        InputError: it is, and may not be.
    """
    config = model_section(artifact)
    if is_object(config.build):
        raise InputError(
            f"{artifact.folder}: its network was made from an object of a program; give --space"
            " FILE, a space file that builds the model that it was"
        )
    if not trust and not _is_shipped(config.build):
        file = config.build.partition(":")[0]
        place = f" of {folder.absolute()}" if file.endswith(".py") else ""
        raise InputError(
            f"{artifact.folder}: its network is built by {config.build!r}{place}, and a name in a"
            " file may be any code; give --space FILE to build it by your own space file, or"
            " --trust to run what the artifact names"
        )
    return lambda: build_model(_unweighted(config), folder)


def own_builder(artifact: Artifact, config: ModelConfig, path: Path) -> BuildModel:
    """Returns the builder that the user's own space file names.

    Args:
        artifact: the compact network on disk.
        config: `[model]` of the space file.
        path: of the space file.

    Raises:
        InputError: the artifact was made from another model.
    """
    named = model_section(artifact)
    of_object = is_object(named.build)  # which has no name: its outputs tell it
    for key in ("input",) if of_object else ("build", "kwargs", "input"):
        own, other = getattr(config, key), getattr(named, key)
        if own != other:
            raise InputError(
                f"{path}: [model] {key} is {own!r}, but {other!r} in {artifact.folder}; expected"
                " the space file that the artifact was made with"
            )
    return lambda: build_model(_unweighted(config), path.parent)


def model_section(artifact: Artifact) -> ModelConfig:
    """Returns the space's `[model]` as an artifact's plan has it.

    Raises:
        InputError: it is missing or malformed.
    """
    section = artifact.plan.get("model", {})
    return validated(ModelConfig, section, f"{artifact.folder / PLAN}: model")


def _is_shipped(reference: str) -> bool:
    """Returns whether a builder is one of the networks of evosearch or torchvision, by name."""
    source, _, name = reference.partition(":")
    if MOVED.get(source, source) == zoo.__name__:
        found = vars(zoo).get(name)
        return isfunction(found) and found.__module__ == zoo.__name__
    if source == "torchvision":
        from torchvision import models

        modules = (models, models.detection, models.segmentation)
        return any(name in models.list_models(module=module) for module in modules)
    return False


def _unweighted(config: ModelConfig) -> ModelConfig:
    """Returns the model without its trained weights: the artifact has its own."""
    return config.model_copy(update={"weights": None})
