"""The subject of a call: a space file, or objects that take its place, as one value."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from evosearch.errors import InputError
from evosearch.objects import DATA, MODEL, TASK, Objects, given

if TYPE_CHECKING:
    from evosearch.api.parameters import (
        Images,
        Model,
        PathLike,
        Sections,
        Shape,
        Splits,
        TaskOrName,
    )
    from evosearch.run.spacefile import SpaceFile

CALIBRATION, SEARCH = (10, 1_000), (5, 5_000)
"""What is set aside of training images, where nothing is said: one in so many, at most so many."""
_NAMES = {"model": ("build", "weights", "kwargs"), "data": ("name", "root", "kwargs")}
"""Keys of a space file that the objects stand for."""


@final
@dataclass(frozen=True, kw_only=True)
class Given:
    """What a call is about.

    Attributes:
        file: the space file, or what one would say of the objects.
        folder: what its paths are relative to.
        name: of new folders.
        where: what holds it, for messages.
        objects: what names in it mean beside code and files.
    """

    file: "SpaceFile"
    folder: Path
    name: str
    where: str
    objects: Objects = field(default_factory=dict, repr=False)

    def scope(self) -> AbstractContextManager[None]:
        """Returns a block inside which the names mean the objects."""
        return given(self.objects)


def subject_of(
    space: "PathLike | None",
    *,
    model: "Model" = None,
    train: "Images" = None,
    test: "Images" = None,
    held_out: "Splits" = None,
    task: "TaskOrName" = None,
    sections: "Sections" = None,
) -> Given:
    """Returns what a call is about, whichever way it was given.

    Args:
        space: a space file; None where there are objects.
        model: the network, which is copied and stays as it is.
        train: training images.
        test: test images.
        held_out: images of splits that are not taken out of the training images.
        task: what networks are judged by, or its name.
        sections: what a space file would say beside.

    Raises:
        InputError: both or neither were given, or something of it is at fault.
    """
    if space is not None:
        images = {"train": train, "test": test, "held_out": held_out}
        return _of_file(space, model=model, **images, task=task, sections=sections)
    from evosearch.config import validated
    from evosearch.data.config import DataConfig

    objects = objects_of(model=model, train=train, test=test, held_out=held_out, task=task)
    parts, said = objects[DATA](), _said(sections)
    data = {**_set_aside(parts), **said.pop("data", {}), "name": DATA}
    config = validated(DataConfig, data, "sections: [data]")
    if task is not None:
        named = {"name": task} if isinstance(task, str) else {"given": TASK}
        said["task"] = {**said.get("task", {}), **named}
    return _of_objects(objects, {**said, "data": data}, _shape_of(parts["train"], config))


def model_of(
    space: "PathLike | None",
    *,
    model: "Model" = None,
    input: "Shape" = None,
    sections: "Sections" = None,
) -> Given:
    """Returns what a call is about that needs no images; see `subject_of`.

    Args:
        space: a space file; None where there is a model.
        model: the network.
        input: shape of one image, without the batch; a list or dict of shapes for several inputs.
        sections: what a space file would say beside.
    """
    if space is not None:
        return _of_file(space, model=model, input=input, sections=sections)
    if input is None:
        raise InputError("input= is missing: the shape of one image, such as (3, 224, 224)")
    return _of_objects(_model(model), {**_said(sections), "data": {"name": DATA}}, input)


def objects_of(
    *,
    model: "Model",
    train: "Images",
    test: "Images",
    held_out: "Splits" = None,
    task: "TaskOrName" = None,
) -> Objects:
    """Returns objects as what names mean by them.

    Raises:
        InputError: one is missing, or is something else.
    """
    from evosearch.data.provided import parts_of
    from evosearch.data.splitting import TAKEN

    found = _model(model)
    for name, images in (("train", train), ("test", test)):
        if images is None:
            raise InputError(
                f"{name}= is missing: a dataset, arrays (images, labels), or a DataLoader"
            )
    if held_out is not None and not isinstance(held_out, Mapping):
        raise InputError(
            f"held_out: expected a dict of splits, any of {', '.join(TAKEN)}, got a"
            f" {_kind(held_out)}"
        )
    parts = parts_of({**(held_out or {}), "train": train, "test": test})
    found[DATA] = lambda: parts
    if task is not None and not isinstance(task, str):
        from evosearch.tasks.task import Task

        if not isinstance(task, Task):
            raise InputError(
                f"task: expected a name or a Task of evosearch.tasks, got a {_kind(task)}"
            )
        found[TASK] = task
    return found


def _model(model: "Model") -> dict[str, Any]:
    from torch import nn

    from evosearch.models.copying import copied

    if model is None:
        raise InputError("give a space file, or model=, train= and test=")
    if not isinstance(model, nn.Module):
        raise InputError(f"model: expected a torch.nn.Module, got a {_kind(model)}")
    return {MODEL: lambda: copied(model).cpu()}


def _of_file(space: "PathLike", **objects: Any) -> Given:
    from evosearch.run.spacefile import load_space_file

    for name, value in objects.items():
        if value is not None:
            raise InputError(
                f"{name}= goes with objects, and {space} names the model: leave it out"
            )
    path = Path(space)
    return Given(file=load_space_file(path), folder=path.parent, name=path.stem, where=str(path))


def _of_objects(objects: Objects, said: dict[str, Any], input: Any) -> Given:
    from evosearch.config import validated
    from evosearch.models.build import BUILT
    from evosearch.run.spacefile import SpaceFile

    shape = dict(input) if isinstance(input, Mapping) else list(input)
    section = {"input": shape, **said.get("model", {}), "build": MODEL, "weights": BUILT}
    return Given(
        file=validated(SpaceFile, {**said, "model": section}, "sections"),
        folder=Path(),
        name="objects",
        where="sections",
        objects=objects,
    )


def _said(sections: "Sections") -> dict[str, Any]:
    """Returns sections of a space file that name nothing that the objects are."""
    given = {} if sections is None else sections
    if not isinstance(given, Mapping) or not all(
        isinstance(own, Mapping) for own in given.values()
    ):
        raise InputError('sections: expected a dict of dicts, such as {"data": {"search": 2000}}')
    said = {name: dict(section) for name, section in given.items()}
    for name, keys in _NAMES.items():
        for key in keys:
            if key in said.get(name, {}):
                raise InputError(
                    f"sections: [{name}] {key} names what was given as an object: leave it out"
                )
    return said


def _set_aside(parts: Mapping[str, Any]) -> dict[str, int]:
    """Returns how many training images calibrate and are searched on, where nothing is said."""
    from evosearch.data.pools import images_in

    count = images_in(parts["train"])
    shares = {"calibration": CALIBRATION, "search": SEARCH}
    return {
        name: max(2, min(count // one, most))
        for name, (one, most) in shares.items()
        if name not in parts
    }


def _shape_of(images: Any, config: Any) -> Any:
    """Returns the shape of the first training image as a network gets it; of several inputs each.

    Raises:
        InputError: it is no image.
    """
    import numpy as np

    from evosearch.callables import one_line
    from evosearch.data.images import LazyPixels
    from evosearch.data.pools import array_pixels, is_pair
    from evosearch.data.several import is_several, mapped
    from evosearch.data.transforms import build_transform

    transform = build_transform(config.transforms, "sections: [data] transforms")
    try:
        first, rows = (images[0], 1) if is_pair(images) else (images[0][0], 0)
        if is_several(first):
            return mapped(lambda own: np.shape(own)[rows:], first)
        if is_pair(images):
            return array_pixels(images[0][:1], transform).shape
        return LazyPixels(lambda position: images[position][0], 1, transform).shape
    except Exception as error:
        raise InputError(f"train: {one_line(error)}") from error


def _kind(value: object) -> str:
    return type(value).__name__
