"""The subject of a search: base network (loaded, or trained once and cached), data and space."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import nn

from evosearch.callables import one_line
from evosearch.calling import Example
from evosearch.data.splits import SearchData, load_search_data
from evosearch.errors import InputError
from evosearch.files import cache_folder, writing
from evosearch.models.build import ModelConfig, build_model
from evosearch.models.weights import load_weights, save_weights, weights_digest
from evosearch.run.identity import identify
from evosearch.run.spacefile import SpaceFile
from evosearch.space.space import SearchSpace
from evosearch.stages import OnStage
from evosearch.study.identity import VERSIONS, Identity, Part
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.tasks.config import load_task
from evosearch.tasks.fitting import require_fit
from evosearch.tasks.task import Task
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.epochs import OnEpoch
from evosearch.training.objective import require_comparable

BASE_SEED = 0
"""Of base training and of the proof: both belong to the space, so every run shares them."""


@dataclass(frozen=True, kw_only=True)
class ProvenNetwork:
    """A base network and its search space, as torch objects.

    Attributes:
        model: the base network, in eval mode.
        example: a batch of two random inputs.
        discovery: the proven search space.
        identity: of what is at hand, with the trained weights.
    """

    model: nn.Module
    example: Example
    discovery: Discovery
    identity: Identity


AnyNetwork = TypeVar("AnyNetwork", bound=ProvenNetwork)


@final
@dataclass(frozen=True, kw_only=True)
class Subject(ProvenNetwork):
    """What a search is about.

    Attributes:
        data: the splits that a search may see.
        task: what networks are judged by.
        elastic: weights whose changes candidates take over, where the search has such.
    """

    data: SearchData
    task: Task
    elastic: nn.Module | None = None


def load_subject(
    file: SpaceFile,
    folder: Path,
    *,
    weights: Path | None = None,
    fresh: int | None = None,
    identify_images: bool = True,
    on_stage: OnStage = lambda _: None,
    on_epoch: OnEpoch | None = None,
    on_space: Callable[[SearchSpace], None] = lambda _: None,
) -> Subject:
    """Loads the base network and data of a space, and proves its search space.

    Training comes last: what is at fault is found before it.

    Args:
        file: the space file's content.
        folder: where it lies.
        weights: takes the place of the weights that the space names.
        fresh: seed of fresh weights, which take their place; nothing is trained.
        identify_images: whether the identity has the images; only with `weights` may it not.
        on_stage: told what is being done.
        on_epoch: progress of base training, where the network must be trained first.
        on_space: called with the proven space, before any training.

    Raises:
        InputError: something named in the space file is missing or does not fit.
    """
    on_stage("data")
    data = load_search_data(file.data, folder)
    task = load_task(file.task, folder)
    on_stage("base network")
    unweighted = file.model.model_copy(update={"weights": None})
    if weights is not None:
        model = build_model(unweighted, folder)
        load_weights(model, weights)
    elif fresh is not None:
        model = build_model(unweighted, folder, seed=fresh)
    else:
        model = build_model(file.model, folder, seed=BASE_SEED)
    example = example_input(file.model)
    on_stage("channel groups, traced and proven")
    discovery = discover_space(file, model)
    if file.traced is not None:
        file.traced.require(discovery.space)
    on_space(discovery.space)
    require_fit(model, data, task)
    if weights is None:
        _require_comparable(model, data, task, file)
    on_stage("identity of data and weights")
    identity = identify(file, folder, model, example, data if identify_images else None)
    if weights is None and fresh is None and file.model.weights is None:
        _train(model, identity, file, data, task, on_epoch, discovery)
        trained = {**identity.parts, Part.WEIGHTS: weights_digest(model)}
        identity = replace(identity, parts=trained)
    return Subject(
        model=model,
        data=data,
        task=task,
        example=example,
        discovery=discovery,
        identity=identity,
    )


def _require_comparable(model: nn.Module, data: SearchData, task: Task, file: SpaceFile) -> None:
    """Checks that all that a space file trains on a teacher's outputs can compare these.

    Raises:
        InputError: the task cannot; names the section.
    """
    sections = {"finetune": file.finetune, "elastic": file.elastic}
    for name, config in sections.items():
        if config is not None:
            require_comparable(
                model,
                data.train,
                temperature=config.temperature,
                alpha=config.alpha,
                task=task,
                section=name,
            )


def load_network(file: SpaceFile, folder: Path, weights: Path) -> ProvenNetwork:
    """Loads the base network of a space, and proves its search space; no data is opened.

    Args:
        file: the space file's content.
        folder: where it lies.
        weights: of the network.

    Raises:
        InputError: something named in the space file is missing or does not fit.
    """
    model = build_model(file.model.model_copy(update={"weights": None}), folder)
    load_weights(model, weights)
    example = example_input(file.model)
    return ProvenNetwork(
        model=model,
        example=example,
        discovery=discover_space(file, model),
        identity=identify(file, folder, model, example, None),
    )


def discover_space(file: SpaceFile, model: nn.Module) -> Discovery:
    """Finds and proves the search space of a space file's model."""
    example = example_input(file.model)
    return discover(
        model,
        example,
        file.groups,
        BASE_SEED,
        reference=_reference(file),
        parts=file.model.parts,
    )


def train_base_network(
    file: SpaceFile, folder: Path, data: SearchData, on_epoch: OnEpoch | None = None
) -> tuple[nn.Module, Path]:
    """Returns the base network of a space that names no weights, and the file that keeps them.

    It is trained with the `[train]` section, unless the same training was done before.

    Args:
        file: the space file's content.
        folder: where it lies.
        data: the splits that it names.
        on_epoch: progress of the training.

    Returns:
        The network in eval mode, and the file of its weights.

    Raises:
        InputError: something named in the space file is missing or does not fit.
    """
    task = load_task(file.task, folder)
    model = build_model(file.model, folder, seed=BASE_SEED)
    require_fit(model, data, task)
    identity = identify(file, folder, model, example_input(file.model), data)
    discovery = discover_space(file, model) if file.train.penalties else None
    return model, _train(model, identity, file, data, task, on_epoch, discovery)


def _train(
    model: nn.Module,
    initial: Identity,
    file: SpaceFile,
    data: SearchData,
    task: Task,
    on_epoch: OnEpoch | None,
    discovery: Discovery | None,
) -> Path:
    """Gives a network that was just built the weights of its training: cached, or made here.

    Returns:
        The file that keeps them.
    """
    path = cached_weights(initial, file.train, file.groups)
    if path.exists():
        load_weights(model, path)
        return path
    train_base(
        model,
        data.train,
        data.search,
        file.train,
        BASE_SEED,
        on_epoch,
        task=task,
        discovery=discovery,
    )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(model, path)
    return path


def cached_weights(initial: Identity, config: TrainConfig, groups: GroupRules) -> Path:
    """Returns where the weights of a base network that is trained here are kept.

    Args:
        initial: identity of what is trained, with the initial weights.
        config: how it is trained.
        groups: which channels may go; penalties are about these.
    """
    settings = config.model_dump(mode="json", exclude_none=True)
    if config.penalties:
        settings["groups"] = groups.model_dump(mode="json")
    parts = (Part.GRAPH, Part.WEIGHTS, Part.TRAIN, Part.PREPARATION, Part.TASK, *VERSIONS)
    key = initial.key(*parts, settings=settings)
    return cache_folder() / "base" / f"{key}.safetensors"


def example_input(config: ModelConfig) -> Example:
    """Returns a batch of two random images in the model's input shapes.

    Raises:
        InputError: no such batch fits into memory.
    """
    rng = torch.Generator().manual_seed(BASE_SEED)
    try:
        return config.inputs(lambda shape: torch.randn(2, *shape, generator=rng))
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(f"[model] input = {config.input}: {one_line(error)}") from error


def _reference(file: SpaceFile) -> dict[str, Any]:
    sections = file.model_dump(mode="json", exclude_none=True, include={"model", "data", "groups"})
    return dict(sections)
