"""The subject of a search: base network (loaded, or trained once and cached), data and space."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from evosearch.callables import one_line
from evosearch.data.splits import SearchData, load_search_data, search_list
from evosearch.errors import InputError
from evosearch.files import cache_folder, writing
from evosearch.models.build import ModelConfig, build_model
from evosearch.models.weights import load_weights, save_weights
from evosearch.run.spacefile import SpaceFile
from evosearch.space.space import SearchSpace
from evosearch.surgery.discovery import Discovery, discover
from evosearch.tasks.config import load_task
from evosearch.tasks.task import Task
from evosearch.training.base_training import train_base
from evosearch.training.trainer import OnEpoch

BASE_SEED = 0
"""Of base training and of the proof: both belong to the space, so every run shares them."""


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a search is about, as torch objects.

    Attributes:
        model: the base network, in eval mode.
        data: the splits that a search may see.
        task: what networks are judged by.
        example: a batch of two random inputs.
        discovery: the proven search space.
    """

    model: nn.Module
    data: SearchData
    task: Task
    example: tuple[Tensor, ...]
    discovery: Discovery


def load_subject(
    file: SpaceFile,
    folder: Path,
    *,
    weights: Path | None = None,
    on_epoch: OnEpoch | None = None,
    on_space: Callable[[SearchSpace], None] = lambda _: None,
) -> Subject:
    """Loads the base network and data of a space, and proves its search space.

    Training comes last: what is at fault is found before it.

    Args:
        file: the space file's content.
        folder: where it lies.
        weights: takes the place of the weights that the space names.
        on_epoch: progress of base training, where the network must be trained first.
        on_space: called with the proven space, before any training.

    Raises:
        InputError: something named in the space file is missing or does not fit.
    """
    data = load_search_data(file.data, folder)
    task = load_task(file.task, folder)
    if weights is None:
        model = build_model(file.model, folder, seed=BASE_SEED)
    else:
        model = build_model(file.model.model_copy(update={"weights": None}), folder)
        load_weights(model, weights)
    example = example_input(file.model)
    discovery = discover_space(file, model)
    if file.traced is not None and file.traced.get("digest") != discovery.space.digest:
        raise InputError(
            "[traced] no longer describes this model; `evosearch inspect` shows what does: write"
            " the space anew, or delete the section"
        )
    on_space(discovery.space)
    if weights is None and file.model.weights is None:
        _train(model, file, folder, data, on_epoch)
    return Subject(model=model, data=data, task=task, example=example, discovery=discovery)


def discover_space(file: SpaceFile, model: nn.Module) -> Discovery:
    """Finds and proves the search space of a space file's model."""
    example = example_input(file.model)
    return discover(model, example, file.groups, BASE_SEED, reference=_reference(file))


def base_network(
    file: SpaceFile, folder: Path, data: SearchData, on_epoch: OnEpoch | None = None
) -> nn.Module:
    """Returns the trained base network, in eval mode.

    Weights that the space names are loaded; where it names none, the network is trained with the
    `[train]` section and cached.
    """
    model = build_model(file.model, folder, seed=BASE_SEED)
    if file.model.weights is None:
        _train(model, file, folder, data, on_epoch)
    return model


def _train(
    model: nn.Module, file: SpaceFile, folder: Path, data: SearchData, on_epoch: OnEpoch | None
) -> None:
    """Gives a network that was just built the weights of its training: cached, or made here."""
    path = cached_weights(file, folder)
    if path.exists():
        load_weights(model, path)
        return
    task = load_task(file.task, folder)
    train_base(model, data.train, data.search, file.train, BASE_SEED, on_epoch, task=task)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(model, path)


def cached_weights(file: SpaceFile, folder: Path = Path()) -> Path:
    """Returns where the weights of a base network that is trained here are kept.

    Args:
        file: the space file's content.
        folder: where it lies, and where it may lie that lists the images of the search split.

    Raises:
        InputError: that list is missing.
    """
    sections = (file.model, file.data, file.task, file.train)
    # A check of the data changes nothing in the network.
    dumps = [part.model_dump(mode="json", exclude={"check_duplicates"}) for part in sections]
    digest = hashlib.sha256(json.dumps(dumps, sort_keys=True).encode())
    listing = search_list(file.data, folder)
    if listing is not None:
        digest.update(listing.read_bytes())
    return cache_folder() / "base" / f"{digest.hexdigest()[:16]}.safetensors"


def example_input(config: ModelConfig) -> tuple[Tensor, ...]:
    """Returns a batch of two random images in the model's input shapes.

    Raises:
        InputError: no such batch fits into memory.
    """
    rng = torch.Generator().manual_seed(BASE_SEED)
    try:
        return tuple(torch.randn(2, *shape, generator=rng) for shape in config.input_shapes)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(f"[model] input = {config.input}: {one_line(error)}") from error


def _reference(file: SpaceFile) -> dict[str, Any]:
    sections = file.model_dump(mode="json", exclude_none=True, include={"model", "data", "groups"})
    return dict(sections)
