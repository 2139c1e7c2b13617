"""The `[task]` section of a space file: a task by name, and callables in place of parts of it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from evosearch.callables import code_digest, resolve_callable
from evosearch.errors import unknown_name
from evosearch.livecode import value_digest
from evosearch.objects import object_of
from evosearch.study.scores import Measure
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.detection import MAP, MAP50, detection
from evosearch.tasks.regression import REGRESSION
from evosearch.tasks.segmentation import IGNORED, segmentation
from evosearch.tasks.task import Task

OWN = (
    "loss",
    "training_loss",
    "metric",
    "pooled",
    "output",
    "collate",
    "distil",
    "predictions",
)
"""Keys that name callables."""
_FIRST = ("loss", "metric", "output")
"""Keys that digests have always named."""


class TaskConfig(BaseModel):
    """The `[task]` section: a task by name, and each callable as "module:name" or "file.py:name".

    A `target` is what labels collate to: labels that are arrays as they are, `(images, ...)`.

    Attributes:
        name: "classification" (cross-entropy of logits, accuracy), "segmentation" (of pixels,
            mIoU), "regression" (squared error, R2) or "detection" (mAP; without a loss of yours
            the network's own, as torchvision's detectors return it). What follows takes the place
            of its parts.
        given: "object:task", the `Task` that a program gave in place of a name.
        loss: `loss(output, target) -> (images,)`: what training lowers and the search compares,
            image by image, with gradients.
        training_loss: `training_loss(network, images, target) -> number, or (images,)`, for a
            network that computes its own: it calls the network. Training lowers that of batches;
            the search compares that of single images, for each of which it calls the network.
        metric: `metric(output, target) -> (images,)`, each in [0, 1], higher is better; tables
            show its mean under its name. For detection also "mAP" or "mAP50".
        pooled: `pooled(statistics) -> number in [0, 1]`, for a metric of all images together:
            `metric` then gives statistics `(images, numbers)`, and this is called with those of
            any choice of images as an array of numpy.
        output: `output(what the model returns) -> tensor (images, ...)`, or a nest of such, in
            training and in evaluation, of the base network and of every network cut from it.
            Without it: the tensor itself, its entry "out" or "logits", or else its first element;
            for detection all that the model returns.
        collate: `collate(labels of images) -> target`, for labels that are dicts or tuples.
            Without it they are stacked, by name; for detection they stay a list.
        distil: `distil(output, teacher output, temperature) -> number`, which distillation lowers.
            Without it: the divergence of logits, softened over the second dimension; regression's
            mean squared difference; and none for detection, so that `[finetune] alpha` is 0.
        predictions: `predictions(output) -> [{boxes, scores, labels}, ...]`, of detection: boxes
            `(boxes, 4)` as left, top, right and bottom, with the scores and the classes of each.
            Without it the output is such a list.
        ignore: the label of pixels that do not count, of segmentation; without it 255.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["classification", "segmentation", "regression", "detection"] = "classification"
    given: Literal["object:task"] | None = None
    loss: str | None = None
    training_loss: str | None = None
    metric: str | None = None
    pooled: str | None = None
    output: str | None = None
    collate: str | None = None
    distil: str | None = None
    predictions: str | None = None
    ignore: int | None = None

    @model_validator(mode="after")
    def _keys_fit_the_name(self) -> Self:
        if self.loss is not None and self.training_loss is not None:
            raise ValueError("loss is of outputs, training_loss calls the network: give one")
        if self.name == "detection" and self.loss is not None and self.predictions is None:
            raise ValueError('detection by a loss of outputs needs predictions, as "file.py:name"')
        own = self.training_loss is not None or (self.name == "detection" and self.loss is None)
        if own and self.distil is not None:
            raise ValueError("distil compares outputs, which a network with its own loss has not")
        if self.name != "detection" and self.predictions is not None:
            raise ValueError("predictions is for name = 'detection'")
        if self.name != "segmentation" and self.ignore is not None:
            raise ValueError("ignore is for name = 'segmentation'")
        if self.pooled is not None and (self.metric is None or self.metric in SHIPPED):
            raise ValueError("pooled needs a metric of your own, which gives its statistics")
        if self.metric is not None and ":" not in self.metric and self.metric not in SHIPPED:
            raise ValueError(str(unknown_name("metric", self.metric, [*SHIPPED, "file.py:name"])))
        if self.metric in SHIPPED and self.name != "detection":
            raise ValueError(f"metric = {self.metric!r} is for name = 'detection'")
        return self


SHIPPED: Mapping[str, Measure] = {MAP.name: MAP, MAP50.name: MAP50}
"""Metrics by name, of which a task has a choice."""


def load_task(config: TaskConfig, folder: Path) -> Task:
    """Returns the task of a `[task]` section.

    Args:
        config: the section.
        folder: where the space file lies, and a `file.py` beside it.

    Raises:
        InputError: there is no such callable.
    """
    found: dict[str, Any] = {
        key: resolve_callable(reference, folder, f"[task] {key}")
        for key, reference in _named(config).items()
    }
    task = _shipped(config, found)
    if "metric" in found:
        name = str(config.metric).rpartition(":")[2]
        found["measure"] = Measure(name=name, pooled=found.pop("pooled", None))
    elif config.metric is not None:
        found["measure"] = SHIPPED[config.metric]
    if "training_loss" in found:
        found |= {"loss": None, "distil": None}
    found.pop("predictions", None)
    return replace(task, **found)


def _shipped(config: TaskConfig, found: Mapping[str, Any]) -> Task:
    """Returns the task of a name."""
    if config.given is not None:
        given: Task = object_of(config.given, "[task] given")
        return given
    if config.name == "segmentation":
        return segmentation(IGNORED if config.ignore is None else config.ignore)
    if config.name == "detection":
        return detection(found.get("loss"), found.get("predictions"))
    return REGRESSION if config.name == "regression" else CLASSIFICATION


def task_digest(config: TaskConfig, folder: Path) -> str:
    """Returns 32 hexadecimal digits for a `[task]` section and its code; see `code_digest`.

    It is the code that counts and not what it gives for some outputs: a threshold that was moved
    need not show in a few numbers, and numbers of two machines differ by rounding.

    Args:
        config: the section.
        folder: where the space file lies.

    Raises:
        InputError: there is no such callable.
    """
    digests: dict[str, Any] = dict.fromkeys(_FIRST)
    said = config.model_dump(exclude_defaults=True)
    digests |= {
        key: code_digest(value, folder, f"[task] {key}") if key in _named(config) else value
        for key, value in said.items()
    }
    if config.given is not None:
        digests["given"] = value_digest(_shipped(config, {}))
    return sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:32]


def _named(config: TaskConfig) -> dict[str, str]:
    """Returns the callables that a section names, by key."""
    said = {key: getattr(config, key) for key in OWN}
    return {key: name for key, name in said.items() if name is not None and name not in SHIPPED}
