"""The latency profile of a space file's model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evosearch.config import validated
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyConfig, LatencyModel
from evosearch.latency.profile import profile
from evosearch.latency.runtimes import require_runtime
from evosearch.machine import resolve_device, torch_threads
from evosearch.models.build import build_model
from evosearch.run.config import SearchConfig
from evosearch.run.identity import identify_model
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import discover_space, example_input
from evosearch.space.space import SearchSpace


def profile_space(
    path: Path,
    settings: Mapping[str, Any],
    device: str | None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> tuple[LatencyModel, SearchSpace]:
    """Profiles the model of a space file; its weights and data do not matter.

    Args:
        path: of the space file.
        settings: take the place of its [search.latency], where they are not None.
        device: takes the place of its [search] device, where it is not None.
        on_stage: told what is being done.

    Returns:
        The latency model, and the space with it.

    Raises:
        InputError: something that was given is at fault.
    """
    file = load_space_file(path)
    search = validated(SearchConfig, file.search, f"{path}: [search]")
    given = {name: value for name, value in settings.items() if value is not None}
    config = validated(LatencyConfig, {**search.latency.model_dump(), **given}, "latency")
    device = resolve_device(device or search.device)
    require_runtime(config.runtime, device)
    on_stage("base network and search space")
    model = build_model(file.model.model_copy(update={"weights": None}), path.parent, seed=0)
    discovery = discover_space(file, model)
    identity = identify_model(file.model, path.parent, model, example_input(file.model))
    with torch_threads(config.threads):
        meter = Meter(
            model=model.to(device).eval(),
            section=file.model,
            discovery=discovery,
            identity=identity,
            config=config,
            device=device,
        )
        found = profile(meter, on_stage)
    return found, found.timed(discovery.space)
