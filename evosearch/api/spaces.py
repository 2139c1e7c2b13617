"""Search spaces from Python: inspected, profiled, trained, and written anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from evosearch.api.parameters import Count, PathLike, public
from evosearch.errors import InputError
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.study.scores import Score

if TYPE_CHECKING:
    from evosearch.criteria.base import Criterion
    from evosearch.report.views import Inspection, ProfileView
    from evosearch.space.space import SearchSpace


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
def inspect(space: PathLike, *, callbacks: Callbacks = SILENT) -> "Inspection":
    """Finds and proves the channel groups of a space, with what is frozen and why.

    Args:
        space: space file (TOML).
        callbacks: told what is being done.

    Raises:
        InputError: the space file or its model is at fault.
    """
    from evosearch.models.build import build_model, find_weights
    from evosearch.report.views import Inspection
    from evosearch.run.spacefile import load_space_file
    from evosearch.run.subject import discover_space

    path = Path(space)
    file = load_space_file(path)
    find_weights(file.model, path.parent)  # the proof needs none, but who inspects wants to search
    callbacks.on_stage("tracing and proving")
    model = build_model(file.model.model_copy(update={"weights": None}), path.parent, seed=0)
    return Inspection(discovery=discover_space(file, model), traced=file.traced, path=path)


@public
def profile(
    space: PathLike,
    *,
    runtime: str | None = None,
    batch: Count = None,
    threads: Count = None,
    device: str | None = None,
    callbacks: Callbacks = SILENT,
) -> "ProfileView":
    """Measures what latency depends on here, and how well it can be predicted; cached.

    What is not given is as the space file says, or else its default.

    Args:
        space: space file (TOML).
        runtime: what runs them: eager (default), compile, exported or onnxruntime.
        batch: images in one run (default 1).
        threads: of the CPU (default 1).
        device: what networks run on: auto (default), cpu or cuda.
        callbacks: told what is being done.

    Raises:
        InputError: something that was given is at fault.
    """
    from evosearch.report.views import ProfileView
    from evosearch.run.profiling import profile_space

    settings = {"runtime": runtime, "batch": batch, "threads": threads}
    model, timed = profile_space(Path(space), settings, device, callbacks.on_stage)
    return ProfileView(model=model, space=timed)


@public
def new_space(
    build: str, *, input: Sequence[str], out: PathLike, callbacks: Callbacks = SILENT
) -> "SearchSpace":
    """Traces and proves a model, and writes a space file for it to be reviewed.

    Args:
        build: builder of the model: torchvision:resnet50 or module:callable.
        input: shape of one image, such as 3x224x224; one for each input of the model.
        out: space file to write.
        callbacks: told what is being done.

    Raises:
        InputError: the file exists, a shape is malformed, or the model cannot be traced.
    """
    from evosearch.run.newspace import write_space

    callbacks.on_stage("tracing and proving")
    return write_space(Path(out), build, input)


@public
def train(space: PathLike, *, callbacks: Callbacks = SILENT) -> TrainedBase:
    """Trains the base network where the space names no weights; the result is cached.

    Args:
        space: space file (TOML).
        callbacks: told how the training goes.

    Raises:
        InputError: the space names weights, or something in it is at fault.
    """
    from evosearch.config import validated
    from evosearch.data.splits import load_search_data
    from evosearch.machine import torch_threads
    from evosearch.run.baselook import BaseLook
    from evosearch.run.config import SearchConfig
    from evosearch.run.spacefile import load_space_file
    from evosearch.run.subject import train_base_network
    from evosearch.tasks.config import load_task
    from evosearch.tasks.scoring import score

    path = Path(space)
    file = load_space_file(path)
    if file.model.weights is not None:
        raise InputError(f"{path}: [model] weights are given, so there is nothing to train")
    data = load_search_data(file.data, path.parent)
    config = validated(SearchConfig, file.search, f"{path}: [search]")
    with torch_threads(config.threads):
        model, weights = train_base_network(file, path.parent, data, callbacks.on_epoch)
    task = load_task(file.task, path.parent)
    found = score(model, data.search, task=task)
    complaint = BaseLook.of(found, file, task, data.search.labels).complaint
    if complaint is not None:
        callbacks.on_note(complaint)
    return TrainedBase(score=found, weights=weights)


@public
def list_criteria() -> "Mapping[str, type[Criterion[Any]]]":
    """Returns the importance criteria by name; each says what it needs and where it is from."""
    from evosearch.criteria import CRITERIA

    return CRITERIA
