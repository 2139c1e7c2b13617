"""The space file: model, data, groups and settings of a search."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evosearch.config import read_toml, validated
from evosearch.data.config import DataConfig
from evosearch.models.build import ModelConfig
from evosearch.surgery.discovery import GroupRules
from evosearch.tasks.config import TaskConfig
from evosearch.training.base_training import TrainConfig
from evosearch.training.distillation import FinetuneConfig
from evosearch.training.recipes import PruneConfig


class SpaceFile(BaseModel):
    """A space file's sections.

    Attributes:
        model: the base network.
        data: its data and splits.
        task: what it is judged by; classification where nothing else is said.
        groups: which channels may go.
        train: base training, for networks whose weights are made here.
        search: defaults for `evosearch search`, and per-strategy settings; the run checks them.
        finetune: distillation of the network that is picked.
        prune: how the network shrinks where it is trained under a budget.
        traced: the search space as `evosearch space new` found it, for people to review; where
            it is present, a search refuses a model whose space has become another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    data: DataConfig
    task: TaskConfig = TaskConfig()
    groups: GroupRules = GroupRules()
    train: TrainConfig = TrainConfig()
    search: dict[str, Any] = Field(default_factory=dict)
    finetune: FinetuneConfig = FinetuneConfig()
    prune: PruneConfig | None = None
    traced: dict[str, Any] | None = None


def load_space_file(path: Path) -> SpaceFile:
    """Reads and checks a space file.

    Raises:
        InputError: it is missing or malformed, or a key or value is wrong.
    """
    return validated(SpaceFile, read_toml(path), str(path))
