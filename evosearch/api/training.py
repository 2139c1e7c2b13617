"""Trainings from Python: of a base network, or of one that shrinks to a budget on its way."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from evosearch.api.parameters import (
    Amount,
    Images,
    Model,
    PathLike,
    Sections,
    Seed,
    Splits,
    TaskOrName,
    option_name,
    public,
)
from evosearch.api.runs import Run
from evosearch.api.searching import given_settings, next_folder
from evosearch.api.subjects import Given, subject_of
from evosearch.errors import InputError
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.space.budget import BudgetRequest
from evosearch.study.scores import Score


@final
@dataclass(frozen=True, kw_only=True)
class TrainedBase:
    """A base network that was trained where its space names no weights.

    Attributes:
        score: on the search split.
        weights: the file that keeps them.
    """

    score: Score
    weights: Path


@public
def train(
    space: PathLike | None = None,
    *,
    model: Model = None,
    train: Images = None,
    test: Images = None,
    held_out: Splits = None,
    task: TaskOrName = None,
    sections: Sections = None,
    accuracy_drop: float | None = None,
    recipe: str | None = None,
    seed: Seed = None,
    device: str | None = None,
    out: PathLike | None = None,
    callbacks: Callbacks = SILENT,
    **budgets: Amount,
) -> TrainedBase | Run:
    """Trains a network under a budget; or, without one, the base network, which is cached.

    A training under a budget is a run, whose trials are the networks that it went through.

    Args:
        space: space file (TOML).
        model: in place of a space file, as in `search`; it comes trained, so there has to be a
            budget, and a recipe that begins with its weights: `{"prune": {"weights": "base"}}`.
        train: with a model, as in `search`.
        test: with a model, as in `search`.
        held_out: with a model, as in `search`.
        task: with a model, as in `search`.
        sections: with a model, as in `search`.
        accuracy_drop: in place of a budget, points of search accuracy that may be lost; with
            recipe play_and_prune.
        recipe: when channels go and which (default one_cycle); evosearch recipes lists them.
        seed: of everything that is drawn (default 0).
        device: what networks run on: auto (default), cpu or cuda.
        out: folder of the run, which must not exist (default a new one in runs).
        callbacks: told how the training goes.
        **budgets: what the network may take of FLOPs or params, as in `search`.

    Returns:
        The base network that was trained; or the run, where a budget or a drop was given.

    Raises:
        InputError: the space names weights and there is no budget, or something that was given
            is at fault.
    """
    request = BudgetRequest.of(accuracy_drop=accuracy_drop, **budgets)
    images = {"train": train, "test": test, "held_out": held_out}
    objects = {"model": model, **images, "task": task, "sections": sections}
    if request.is_empty:
        own = {"recipe": recipe, "seed": seed, "device": device, "out": out}
        for name in given_settings(own):
            raise InputError(
                f"{option_name(name)} is for a training under a budget: give --flops 50% with it"
            )
        return _trained_base(subject_of(space, **objects), callbacks)
    from evosearch.config import validated
    from evosearch.run.config import SearchConfig
    from evosearch.run.training import begin_training
    from evosearch.study.study import Study
    from evosearch.training.recipes import PruneConfig

    subject = subject_of(space, **objects)
    file = subject.file
    settings = {**file.search, **given_settings({"seed": seed, "device": device})}
    prune = file.prune or PruneConfig()
    if recipe is not None:
        prune = PruneConfig(**{**prune.model_dump(exclude_unset=True), "recipe": recipe})
    folder = Path(out) if out is not None else next_folder(Path("runs"), subject.name)
    with subject.scope():
        ended = begin_training(
            folder,
            space_file=file,
            space_folder=subject.folder,
            search=validated(SearchConfig, settings, f"{subject.where}: [search]"),
            prune=prune,
            request=request,
            callbacks=callbacks,
        )
    return Run(folder=folder, study=Study.open(folder), ended=ended, objects=subject.objects)


def _trained_base(subject: Given, callbacks: Callbacks) -> TrainedBase:
    from evosearch.config import validated
    from evosearch.data.splits import load_search_data
    from evosearch.machine import torch_threads
    from evosearch.run.baselook import BaseLook
    from evosearch.run.config import SearchConfig
    from evosearch.run.subject import train_base_network
    from evosearch.tasks.config import load_task
    from evosearch.tasks.scoring import score

    file, folder = subject.file, subject.folder
    if file.model.weights is not None:
        raise InputError(
            f"{subject.where}: [model] weights are given, so there is nothing to train"
        )
    data = load_search_data(file.data, folder)
    config = validated(SearchConfig, file.search, f"{subject.where}: [search]")
    with torch_threads(config.threads):
        model, weights = train_base_network(file, folder, data, callbacks.on_epoch)
    task = load_task(file.task, folder)
    found = score(model, data.search, task=task)
    complaint = BaseLook.of(found, file, task, data.search.labels).complaint
    if complaint is not None:
        callbacks.on_note(complaint)
    return TrainedBase(score=found, weights=weights)
