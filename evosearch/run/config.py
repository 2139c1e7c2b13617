"""The config of a run, all that it was asked for; and the search settings in it."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from evosearch.config import Sectioned, read_toml, validated
from evosearch.engine.config import EvaluatorConfig
from evosearch.errors import InputError
from evosearch.latency.model import LatencyConfig
from evosearch.run.baselines import BASELINES
from evosearch.run.folder import RunFolder
from evosearch.run.spacefile import SpaceFile
from evosearch.strategies import STRATEGIES, strategy_class
from evosearch.study.records import Header
from evosearch.training.recipes import PruneConfig


class SearchConfig(Sectioned):
    """How a run searches ([search] in a space file, and the command line).

    Beside these there is a section for the settings of each strategy, such as [search.rates]:
    those that were given, and, with every default, those of the strategies that search.

    Attributes:
        strategy: who proposes masks.
        trials: evaluated masks in all, repeated and failed ones included.
        seed: of everything that the run draws.
        threads: CPU threads of evaluation, base training and fine-tuning; results depend on it.
        timeout: seconds that one measurement may take before it counts as failed; none is no
            limit.
        device: "cpu", "cuda" or another torch device; "auto" takes a GPU where there is one.
        keep_ratios: shares of its channels at which each group's sensitivity is probed.
        probe_images: search images that a probe is scored on, at most.
        criterion: importance criterion that orders channels for plans of widths only, where the
            section of a strategy names no other.
        baselines: whether random, uniform and global plans are searched beside, at as many full
            evaluations.
        evaluator: how candidates are scored.
        latency: under which conditions latency is measured.
    """

    __pydantic_extra__: dict[str, Any]

    strategy: str = "rates"
    trials: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    device: str = "auto"
    keep_ratios: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75)
    probe_images: int = Field(default=512, ge=2)
    criterion: str = "two_step"
    baselines: bool = False
    evaluator: EvaluatorConfig = EvaluatorConfig()
    latency: LatencyConfig = LatencyConfig()

    @classmethod
    def sections(cls) -> Mapping[str, type[BaseModel]]:
        """Returns the models of the strategies' settings, by strategy."""
        return {name: strategy.Config for name, strategy in STRATEGIES.items()}

    @property
    def strategies(self) -> tuple[str, ...]:
        """Who searches: the strategy of the run, and the baselines beside it."""
        return tuple(dict.fromkeys((self.strategy, *(BASELINES if self.baselines else ()))))

    @property
    def criteria(self) -> tuple[str, ...]:
        """The importance criteria that are named, for the run or for who searches."""
        settings = (self.settings(name) for name in self.strategies)
        own = (getattr(config, "criterion", self.criterion) for config in settings)
        return tuple(dict.fromkeys((self.criterion, *own)))

    def settings(self, strategy: str) -> BaseModel:
        """Returns the settings of a strategy.

        Raises:
            InputError: there is no such strategy; names the nearest.
        """
        strategy_class(strategy)
        section = self.__pydantic_extra__.get(strategy, {})
        return self._read({strategy: section})[strategy]

    @model_validator(mode="after")
    def _with_settings(self) -> "SearchConfig":
        """Reads the sections that were given, and fills in those of the strategies that search."""
        sections = self.__pydantic_extra__
        for name in self.strategies:
            if name in STRATEGIES:
                sections.setdefault(name, {})
        # A run may be shown by a program that does not know the strategy that searched it.
        known = {x: own for x, own in sections.items() if x != self.strategy or x in STRATEGIES}
        sections.update(self._read(known))
        return self

    def _read(self, sections: Mapping[str, Any]) -> dict[str, BaseModel]:
        """Returns the settings of strategies as their own models have them."""
        models: dict[str, Any] = {name: (model, None) for name, model in self.sections().items()}
        reader = create_model("Sections", __config__=ConfigDict(extra="forbid"), **models)
        read = reader.model_validate(
            {name: self._with_criterion(name, section) for name, section in sections.items()}
        )
        return {name: getattr(read, name) for name in sections}

    def _with_criterion(self, strategy: str, section: Any) -> Any:
        """Returns a section with the run's criterion, where it has a place but no other for it."""
        model = self.sections().get(strategy)
        if model is None or "criterion" not in model.model_fields or not isinstance(section, dict):
            return section
        return {"criterion": self.criterion, **section}


class RunConfig(BaseModel):
    """Everything that a run was asked for, every default in it.

    Attributes:
        folder: where the space file lies; its relative paths refer to it.
        budget: resource -> lower and upper bound; and the least accuracy, if there is one.
        segments: where in the study the budget changed, and to what; the study is what counts.
        search: how it searches.
        space: the space file.
        prune: how the network shrinks, of a training under a budget; None in a search.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    budget: dict[str, list[int] | bool | float]
    segments: tuple[dict[str, Any], ...] = ()
    search: SearchConfig
    space: SpaceFile
    prune: PruneConfig | None = None


def read_run_config(folder: Path) -> RunConfig:
    """Reads the config of a run.

    Raises:
        InputError: the folder holds no run, or its config is not valid.
    """
    path = RunFolder(folder).config
    if not path.is_file():
        raise InputError(f"{folder}: not a run (it has no {path.name})")
    return validated(RunConfig, read_toml(path), str(path))


def space_folder_of(card: Mapping[str, Any]) -> Path:
    """Returns where the space file of an artifact lies, of a run's if that is still there."""
    if isinstance(space := card.get("space"), str):
        return Path(space).parent
    run = card.get("run")
    if not isinstance(run, str) or not RunFolder(Path(run)).config.is_file():
        return Path()
    return Path(read_run_config(Path(run)).folder)


def run_config_digest(config: RunConfig) -> str:
    """Returns 16 hexadecimal digits that change with any setting that a run began with."""
    begun = config.model_copy(update={"segments": ()})
    return sha256(run_config_to_toml(begun).encode()).hexdigest()[:16]


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Returns every setting that a run began with, as dotted key -> value."""
    begun = config.model_copy(update={"segments": ()})
    return dict(_flat("", begun.model_dump(mode="json", exclude_none=True)))


def require_unchanged(path: Path, config: RunConfig, header: Header) -> None:
    """Refuses a config that is not the one that a run began with.

    Args:
        path: of the config, for messages.
        config: as read.
        header: of the run's study, which has the digest and the settings that it began with.

    Raises:
        InputError: names the keys that differ, with what was and what is.
    """
    if run_config_digest(config) == header.config_digest:
        return
    begun, now = header.config, settings_of(config)
    keys = sorted(key for key in {*begun, *now} if begun.get(key) != now.get(key))
    changes = [f"{key} was {_shown(begun, key)}, is {_shown(now, key)}" for key in keys]
    named = f": {'; '.join(changes[:3])}" if begun and changes else ""
    more = f"; and {len(changes) - 3} more" if begun and len(changes) > 3 else ""
    raise InputError(
        f"{path}: edited since the run began, or from another run or version of evosearch"
        f"{named}{more}; undo that, or start anew"
    )


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields dotted keys with their values; lists are values."""
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(f"{prefix}.{key}" if prefix else key, inner)


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key]) if key in settings else "not set"


def run_config_to_toml(config: RunConfig) -> str:
    """Returns a config as TOML, every default in it."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
