"""Search spaces from Python: inspected, profiled, and written anew."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evosearch.api.parameters import Count, Model, PathLike, Sections, Shape, public
from evosearch.api.subjects import model_of
from evosearch.run.callbacks import SILENT, Callbacks

if TYPE_CHECKING:
    from evosearch.criteria.base import Criterion
    from evosearch.report.views import Inspection, ProfileView
    from evosearch.space.space import SearchSpace
    from evosearch.training.recipes import Recipe


@public
def inspect(
    space: PathLike | None = None,
    *,
    model: Model = None,
    input: Shape = None,
    sections: Sections = None,
    callbacks: Callbacks = SILENT,
) -> "Inspection":
    """Finds and proves the channel groups of a space, with what is frozen and why.

    A model may take the place of a space file, as in

        evosearch.inspect(model=net, input=(3, 224, 224))

    Args:
        space: space file (TOML).
        model: in place of a space file: any network.
        input: with a model: shape of one image; a list or dict of shapes for several inputs.
        sections: with a model: what a space file says beside, as `{"groups": {"min_keep": 8}}`.
        callbacks: told what is being done.

    Raises:
        InputError: the space file or its model is at fault.
    """
    from evosearch.models.build import build_model, find_weights
    from evosearch.report.views import Inspection
    from evosearch.run.subject import discover_space

    subject = model_of(space, model=model, input=input, sections=sections)
    file, folder = subject.file, subject.folder
    find_weights(file.model, folder)  # the proof needs none, but who inspects wants to search
    callbacks.on_stage("tracing and proving")
    with subject.scope():
        network = build_model(file.model.model_copy(update={"weights": None}), folder, seed=0)
        found = discover_space(file, network)
    return Inspection(discovery=found, traced=file.traced, path=Path(subject.where))


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
        runtime: what runs them: eager (default), compile, exported, onnxruntime
            or onnxruntime-int8.
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
    build: str,
    *,
    input: Sequence[str] | None = None,
    part: Sequence[str] | None = None,
    out: PathLike,
    callbacks: Callbacks = SILENT,
) -> "SearchSpace":
    """Traces and proves a model, and writes a space file for it to be reviewed.

    Args:
        build: builder of the model: torchvision:resnet50, timm:resnet50 or module:callable.
        input: shape of one image, such as 3x224x224; one for each input of the model, as
            image=3x224x224 where it has a name (default what the model was trained on, for one of
            timm).
        part: module that alone is traced, where the whole model cannot be; one for each (default
            the whole model).
        out: space file to write.
        callbacks: told what is being done.

    Raises:
        InputError: the file exists, a shape is malformed, or the model cannot be traced.
    """
    from evosearch.run.newspace import write_space

    callbacks.on_stage("tracing and proving")
    return write_space(Path(out), build, input, part or ())


@public
def list_criteria() -> "Mapping[str, type[Criterion[Any]]]":
    """Returns the importance criteria by name; each says what it needs and where it is from."""
    from evosearch.criteria import CRITERIA

    return CRITERIA


@public
def list_recipes() -> "Mapping[str, Recipe]":
    """Returns the recipes for training under a budget by name; each says where it is from."""
    from evosearch.training.recipes import RECIPES

    return RECIPES
