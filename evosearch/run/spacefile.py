"""The space file: model, data, groups and settings of a search."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evosearch.config import read_toml, validated
from evosearch.data.config import DataConfig
from evosearch.errors import InputError
from evosearch.models.build import ModelConfig
from evosearch.objects import is_object
from evosearch.space.space import SearchSpace
from evosearch.surgery.discovery import GroupRules
from evosearch.tasks.config import TaskConfig
from evosearch.training.base_training import TrainConfig
from evosearch.training.distillation import FinetuneConfig
from evosearch.training.elastic import ElasticConfig
from evosearch.training.recipes import PruneConfig


class Traced(BaseModel):
    """The search space that a file was reviewed with, in short.

    What else stands in the section is not read: the `space.toml` of a run holds the whole space.

    Attributes:
        digest: of the space: this alone says whether the model still has it.
        groups: how many there were.
        channels: of all groups together.
        flops: of the base network, for one image.
        params: of the base network.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    digest: str
    groups: int | None = None
    channels: int | None = None
    flops: int | None = None
    params: int | None = None

    @classmethod
    def of(cls, space: SearchSpace) -> "Traced":
        """Returns what a file says of a space."""
        return cls(
            digest=space.digest,
            groups=len(space.groups),
            channels=sum(space.sizes.values()),
            flops=space.base_cost.flops,
            params=space.base_cost.params,
        )

    def require(self, space: SearchSpace) -> None:
        """Checks that a model has the space of the file.

        Raises:
            InputError: it has another one; one line that names what differs.
        """
        if self.digest == space.digest:
            return
        before, after = self.model_dump(exclude_none=True), self.of(space).model_dump()
        changed = [
            f"{name} {before[name]:,} then, {after[name]:,} now"
            for name in before
            if name != "digest" and before[name] != after[name]
        ]
        counted = "as many groups, channels, FLOPs and params, but other members or costs of them"
        unknown = f"digest {self.digest} then, {space.digest} now"
        found = "; ".join(changed) or (counted if len(before) == len(after) else unknown)
        raise InputError(
            f"[traced] no longer holds: {found} (evosearch inspect shows them); delete the section"
            " where that is meant, or write the space anew"
        )


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
        elastic: training of the weights whose changes candidates take over, where the search's
            evaluator has `build = "elastic"`.
        prune: how the network shrinks where it is trained under a budget.
        traced: the search space that `evosearch space new` found; where it is present, a search
            refuses a model whose space has become another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    data: DataConfig
    task: TaskConfig = TaskConfig()
    groups: GroupRules = GroupRules()
    train: TrainConfig = TrainConfig()
    search: dict[str, Any] = Field(default_factory=dict)
    finetune: FinetuneConfig = FinetuneConfig()
    elastic: ElasticConfig | None = None
    prune: PruneConfig | None = None
    traced: Traced | None = None

    @property
    def is_of_objects(self) -> bool:
        """Whether a program gave objects in place of names, and has to give them again."""
        return is_object(self.model.build)

    def require_names(self, what: str) -> None:
        """Refuses what other processes do, where only this one has the model and the data.

        Raises:
            InputError: the model is an object of a program.
        """
        if self.is_of_objects:
            raise InputError(
                f"{what} takes processes of its own, which have no objects: name the model and the"
                " data in a space file"
            )


def load_space_file(path: Path) -> SpaceFile:
    """Reads and checks a space file.

    Raises:
        InputError: it is missing or malformed, or a key or value is wrong.
    """
    return validated(SpaceFile, read_toml(path), str(path))
