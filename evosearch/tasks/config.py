"""The `[task]` section of a space file: a loss, a metric and an output, each named by module."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evosearch.callables import code_digest, resolve_callable
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.task import Task


class TaskConfig(BaseModel):
    """The `[task]` section: each a "module:callable" or "file.py:callable", or none.

    Attributes:
        loss: `loss(output, target) -> (images,)`: what training lowers and the search compares,
            image by image, with gradients. Without it: cross-entropy, in nats.
        metric: `metric(output, target) -> (images,)`, each in [0, 1], higher is better: what
            is shown as accuracy. Without it: whether the largest logit is the label's.
        output: `output(what the model returns) -> tensor (images, ...)`, in training and in
            evaluation, of the base network and of every network cut from it. Distillation
            softens it over its second dimension; for an output that is no logits, set
            `[finetune] alpha = 0`. Without it: the tensor itself, its entry "out" or "logits",
            or else its first element.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: str | None = None
    metric: str | None = None
    output: str | None = None


def load_task(config: TaskConfig, folder: Path) -> Task:
    """Returns the task of a `[task]` section.

    Args:
        config: the section.
        folder: where the space file lies, and a `file.py` beside it.

    Raises:
        InputError: there is no such callable.
    """
    named = {key: value for key, value in config.model_dump().items() if value is not None}
    found = {k: resolve_callable(v, folder, f"[task] {k}") for k, v in named.items()}
    return replace(CLASSIFICATION, **found)


def task_digest(config: TaskConfig, folder: Path) -> str:
    """Returns 32 hexadecimal digits for the code of a `[task]` section; see `code_digest`.

    It is the code that counts and not what it gives for some outputs: a threshold that was moved
    need not show in a few numbers, and numbers of two machines differ by rounding.

    Args:
        config: the section.
        folder: where the space file lies.

    Raises:
        InputError: there is no such callable.
    """
    digests = {
        key: None if value is None else code_digest(value, folder, f"[task] {key}")
        for key, value in config.model_dump().items()
    }
    return sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:32]
