"""Energy by the counters of the hardware: RAPL for CPUs, NVML for NVIDIA's GPUs.

What a counter counts is counted, idle power and what else runs included; where none is readable
there is no energy. Nothing is estimated.
"""

from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch

from evosearch.errors import EvosearchError
from evosearch.latency.stopwatch import Runner, in_turn, median_interval, wait
from evosearch.study.runtimecost import Energy
from evosearch.study.timing import Timing

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL's counters."""
ROUNDS = 11
"""Of a comparison."""


class NoCounter(EvosearchError):
    """No counter tells what energy is spent; the message says why."""


class Counter(Protocol):
    """Counts the energy that hardware takes."""

    @property
    def covers(self) -> str:
        """What it counts, for people."""
        ...

    @property
    def block(self) -> float:
        """Seconds that a network runs in a row, at least: many times what an update takes."""
        ...

    def joules(self) -> float:
        """Returns what was spent since some time.

        Raises:
            NoCounter: it cannot be read.
        """
        ...


def open_counter(device: str, powercap: Path = POWERCAP) -> Counter:
    """Returns the counter of what a device spends.

    Args:
        device: torch's name of it.
        powercap: where the counters of CPUs lie.

    Raises:
        NoCounter: there is none, or it cannot be read.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return Rapl(powercap)
    if kind == "cuda":
        return Nvml(device)
    raise NoCounter(f"no counter is known of a device {device!r}")


@final
class Rapl:
    """The counters of every CPU package, and of its memory where there is one, added up.

    Cores and the platform have counters too, which count a part of a package, or more than it. A
    counter begins again at 0 after some minutes at full power, so it is to be read more often.
    """

    block = 0.2  # it is updated every millisecond

    def __init__(self, powercap: Path) -> None:
        """Finds the counters.

        Raises:
            NoCounter: there is none, or one cannot be read.
        """
        self._zones = _zones(powercap)
        if not self._zones:
            raise NoCounter(f"{powercap}: no RAPL counter of a CPU package here")
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in self._zones.values()]
        self._last = self._read()
        self._spent = 0

    @property
    def covers(self) -> str:
        """See `Counter.covers`."""
        return f"package energy, idle power included (RAPL: {', '.join(self._zones)})"

    def joules(self) -> float:
        """See `Counter.joules`; counts from when it was opened."""
        now = self._read()
        for before, after, whole in zip(self._last, now, self._ranges, strict=True):
            self._spent += after - before + (whole if after < before else 0)
        self._last = now
        return self._spent / 1e6

    def _read(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self._zones.values()]


def _zones(powercap: Path) -> dict[str, Path]:
    """Returns the folders of the counters by name: "package-0", "package-0 dram"."""
    found: dict[str, Path] = {}
    # Some packages have their counter twice, as intel-rapl-mmio:0 and as intel-rapl:0: the later
    # of one name takes the place of the earlier.
    for folder in sorted(powercap.glob("*rapl*:*")):
        name = _text(folder / "name")
        if name.startswith("package-"):
            found[name] = folder
        elif name == "dram":
            package = folder.with_name(folder.name.rpartition(":")[0])
            found[f"{_text(package / 'name')} dram"] = folder
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise NoCounter(f"{path}: {error.strerror}") from error


def _number(path: Path) -> int:
    text = _text(path)
    if not text.isdecimal():
        raise NoCounter(f"{path}: expected microjoules, got {text!r}")
    return int(text)


@final
class Nvml:
    """The counter of one of NVIDIA's GPUs."""

    block = 2.0  # it is updated every 20 to 100 milliseconds

    def __init__(self, device: str) -> None:
        """Finds the counter.

        Args:
            device: torch's name of it.

        Raises:
            NoCounter: what reads it is not installed, or says why it cannot.
        """
        try:
            self._nvml: Any = import_module("pynvml")
        except ImportError as error:
            raise NoCounter("NVML is read by a package: pip install nvidia-ml-py") from error
        try:
            self._nvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except self._nvml.NVMLError as error:
            raise NoCounter(f"NVML: {error}") from error
        self.joules()

    @property
    def covers(self) -> str:
        """See `Counter.covers`."""
        return "GPU energy, idle power included (NVML)"

    def joules(self) -> float:
        """See `Counter.joules`; counts from when the driver was loaded."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise NoCounter(f"NVML: {error}") from error


def compare_energy(
    network: Runner, base: Runner, counter: Counter, timing: Timing, batch: int
) -> Energy:
    """Measures a network's energy against the base network's, a block of each in turn.

    Args:
        network: the one to measure.
        base: the one to compare with.
        counter: what is spent.
        timing: of both, which says how many runs a block takes.
        batch: images in one run.

    Raises:
        NoCounter: it cannot be read, or stands still.
    """
    runs = (network, base)
    blocks = [ceil(counter.block / s) for s in (timing.seconds, timing.base_seconds)]
    joules = in_turn(ROUNDS, lambda own: _spent(runs[own], blocks[own], counter)) / batch
    if not joules.all():
        raise NoCounter("the counter stands still while a network runs, as in virtual machines")
    median, low, high = median_interval(joules[:, 0])
    ratio, ratio_low, ratio_high = median_interval(joules[:, 0] / joules[:, 1])
    return Energy(
        joules=median,
        low=low,
        high=high,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        base_joules=float(np.median(joules[:, 1])),
        rounds=ROUNDS,
        covers=counter.covers,
    )


def _spent(run: Runner, number: int, counter: Counter) -> float:
    """Returns the mean joules of one of so many runs; one before them warms caches up."""
    run()
    wait()
    before = counter.joules()
    for _ in range(number):
        run()
    wait()
    return (counter.joules() - before) / number
