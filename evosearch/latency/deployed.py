"""What an artifact's network costs to run, measured beside the base network, for its card."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from torch import nn

from evosearch.callables import one_line
from evosearch.errors import InputError
from evosearch.export.artifact import Artifact, write_card
from evosearch.export.builder import BuildModel, model_section
from evosearch.export.card import with_runtime_cost
from evosearch.latency.bench import SECONDS, Bench
from evosearch.latency.energy import POWERCAP, NoCounter, compare_energy, open_counter
from evosearch.latency.model import LatencyConfig
from evosearch.latency.stopwatch import Stopwatch, compare
from evosearch.machine import torch_threads
from evosearch.models.weights import load_weights
from evosearch.study.runtimecost import RuntimeCost


@final
@dataclass(frozen=True, kw_only=True)
class Deployed:
    """An artifact whose network was measured in runtimes.

    Attributes:
        artifact: with what was measured on its card, beside what was there.
        costs: what was measured, in the order of the runtimes.
        no_energy: why no energy was read; None where it was.
    """

    artifact: Artifact
    costs: tuple[RuntimeCost, ...]
    no_energy: str | None


def measure_deployed(
    artifact: Artifact,
    build_model: BuildModel,
    configs: Sequence[LatencyConfig],
    *,
    device: str,
    base_weights: Path | None = None,
    powercap: Path = POWERCAP,
    stopwatch: Stopwatch | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Deployed:
    """Measures an artifact's network in turn with the base network, and writes that on its card.

    The card is written after each runtime. What it says of the same runtime, batch, threads and
    device is replaced.

    Args:
        artifact: the compact network on disk.
        build_model: makes the original, unpruned model, which is the base network.
        configs: a runtime each, with batch and threads.
        device: torch's name of it.
        base_weights: of the base network; where they are None, or another network's, it keeps
            those that it is built with, which time does not depend on; energy may, a little.
        powercap: where the counters of CPUs lie.
        stopwatch: the clock; None is torch's.
        on_stage: told what is being done.

    Raises:
        InputError: a runtime is not there, or the artifact cannot be loaded, and nothing is
            timed; or a runtime cannot run the network, or another network took its place, and
            what was measured before stays.
        StorageError: the card cannot be written.
    """
    section = model_section(artifact)
    benches = [Bench(section, config, device, stopwatch) for config in configs]
    on_stage("base network and artifact")
    base = build_model()
    if base_weights is not None:
        with suppress(InputError):  # the run's name is another run's by now
            load_weights(base, base_weights)
    base, network = base.to(device).eval(), artifact.load(build_model).to(device).eval()
    costs: list[RuntimeCost] = []
    no_energy = None
    for bench in benches:
        try:
            cost, no_energy = _cost(bench, (network, base), device, powercap, on_stage)
        except Exception as error:
            raise InputError(
                f"{artifact.folder}: runtime {bench.config.runtime!r} cannot run its network:"
                f" {one_line(error)}"
            ) from error
        costs.append(cost)
        artifact = _noted(artifact, cost)
    return Deployed(artifact=artifact, costs=tuple(costs), no_energy=no_energy)


def _noted(artifact: Artifact, cost: RuntimeCost) -> Artifact:
    """Writes what a network costs on the card that its folder has by then.

    Raises:
        InputError: the folder holds another network by then.
    """
    found = Artifact.open(artifact.folder)
    if found.plan != artifact.plan or found.card.get("files") != artifact.card.get("files"):
        raise InputError(
            f"{artifact.folder}: holds another network than when measuring began: measure again"
        )
    found = replace(found, card=with_runtime_cost(found.card, cost))
    write_card(found.folder, found.card)
    return found


def _cost(
    bench: Bench,
    networks: tuple[nn.Module, nn.Module],
    device: str,
    powercap: Path,
    on_stage: Callable[[str], None],
) -> tuple[RuntimeCost, str | None]:
    """Measures a network in turn with its base network, in one runtime.

    Returns:
        What it costs, and why no energy was read, where none was.
    """
    with torch_threads(bench.config.threads):
        on_stage(f"{bench.config.runtime}: latency")
        network, base = map(bench.runner, networks)
        timing = compare(network, base, bench.stopwatch, SECONDS)
        cost = RuntimeCost(conditions=bench.conditions, timing=timing)
        try:
            counter = open_counter(device, powercap)
            on_stage(f"{bench.config.runtime}: energy")
            energy = compare_energy(network, base, counter, timing, bench.config.batch)
        except NoCounter as error:
            return cost, str(error)
        return replace(cost, energy=energy), None
