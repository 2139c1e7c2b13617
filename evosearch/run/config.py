"""What a run was asked for: its config file, and the search settings in it."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from evosearch.config import read_toml, validated
from evosearch.engine.evaluator import EvaluatorConfig
from evosearch.errors import InputError
from evosearch.latency.model import LatencyConfig
from evosearch.run.spacefile import SpaceFile
from evosearch.strategies import strategy_class
from evosearch.strategies.genetic import NsgaConfig
from evosearch.strategies.layerwise import LayerwiseConfig
from evosearch.strategies.rates import RatesConfig
from evosearch.study.records import Header

CONFIG = "config.toml"


class SearchConfig(BaseModel):
    """How a run searches ([search] in a space file, and the command line).

    Attributes:
        strategy: who proposes masks.
        trials: evaluated masks in all, repeated and failed ones included.
        seed: of everything that the run draws.
        threads: CPU threads of evaluation, base training and fine-tuning; results depend on it.
        timeout: seconds that one measurement may take before it counts as failed; none is no
            limit.
        device: "cpu", "cuda" or another torch device; "auto" takes a GPU where there is one.
        keep_ratios: shares of its channels at which each group's sensitivity is probed.
        criterion: importance criterion that orders channels for plans of widths only.
        baselines: whether random, uniform and global plans are searched beside, at as many full
            evaluations.
        evaluator: how candidates are scored.
        latency: under which conditions latency is measured.
        genetic, layerwise, rates: settings of those strategies.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str = "rates"
    trials: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    timeout: float | None = Field(default=None, gt=0)
    device: str = "auto"
    keep_ratios: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75)
    criterion: str = "two_step"
    baselines: bool = False
    evaluator: EvaluatorConfig = EvaluatorConfig()
    latency: LatencyConfig = LatencyConfig()
    genetic: NsgaConfig = NsgaConfig()
    layerwise: LayerwiseConfig = LayerwiseConfig()
    rates: RatesConfig = RatesConfig()

    def settings(self, strategy: str) -> BaseModel:
        """Returns the settings of a strategy; its criterion is that of the run."""
        own: BaseModel | None = getattr(self, strategy, None)
        own = own or strategy_class(strategy).Config()
        if "criterion" in type(own).model_fields:
            own = own.model_copy(update={"criterion": self.criterion})
        return own


class RunConfig(BaseModel):
    """Everything that a run was asked for, every default in it (`config.toml`).

    Attributes:
        folder: where the space file lies; its relative paths refer to it.
        budget: resource -> lower and upper bound; and the least accuracy, if there is one.
        segments: where in the study the budget changed, and to what; the study is what counts.
        search: how it searches.
        space: the space file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    budget: dict[str, list[int] | bool | float]
    segments: tuple[dict[str, Any], ...] = ()
    search: SearchConfig
    space: SpaceFile


def read_run_config(folder: Path) -> RunConfig:
    """Reads the config of a run.

    Raises:
        InputError: the folder holds no run, or its config is not valid.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: not a run (it has no {CONFIG})")
    return validated(RunConfig, read_toml(folder / CONFIG), str(folder / CONFIG))


def space_folder_of(card: Mapping[str, Any]) -> Path:
    """Returns where the space file of an artifact's run lies, if the run is still there."""
    run = card.get("run")
    if not isinstance(run, str) or not Path(run, CONFIG).is_file():
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
