"""Energy by counters that are files and objects: sums, wraps, and what cannot be read."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from evosearch.latency.energy import ROUNDS, NoCounter, Rapl, compare_energy, open_counter
from evosearch.study.runtimecost import format_energy
from evosearch.study.timing import Timing

TIMING = Timing(
    seconds=0.1,
    low=0.1,
    high=0.1,
    ratio=0.5,
    ratio_low=0.5,
    ratio_high=0.5,
    base_seconds=0.2,
    rounds=15,
)


def zone(powercap: Path, folder: str, name: str, energy: int, whole: int = 10**9) -> None:
    """Writes a counter as Linux shows it."""
    place = powercap / folder
    place.mkdir(parents=True, exist_ok=True)
    for file, value in (("name", name), ("energy_uj", energy), ("max_energy_range_uj", whole)):
        (place / file).write_text(f"{value}\n")


def machine(powercap: Path, first: int, second: int, memory: int, elsewhere: int) -> None:
    """Writes two packages, the memory of one, and what would be counted twice."""
    zone(powercap, "intel-rapl:0", "package-0", first)
    zone(powercap, "intel-rapl:1", "package-1", second, whole=1000)
    zone(powercap, "intel-rapl:0:1", "dram", memory)
    zone(powercap, "intel-rapl:0:0", "core", elsewhere)
    zone(powercap, "intel-rapl:2", "psys", elsewhere)
    zone(powercap, "intel-rapl-mmio:0", "package-0", elsewhere)
    (powercap / "intel-rapl").mkdir(exist_ok=True)


def test_packages_and_their_memory_add_up(tmp_path: Path) -> None:
    machine(tmp_path, first=1_000_000, second=500, memory=7, elsewhere=0)
    counter = Rapl(tmp_path)
    assert counter.joules() == 0
    machine(tmp_path, first=3_500_000, second=700, memory=500_007, elsewhere=10**8)
    assert counter.joules() == pytest.approx(2.5 + 200e-6 + 0.5)
    assert counter.covers == (
        "package energy, idle power included (RAPL: package-0, package-0 dram, package-1)"
    )


def test_a_counter_that_began_again_went_on(tmp_path: Path) -> None:
    machine(tmp_path, first=0, second=900, memory=0, elsewhere=0)
    counter = Rapl(tmp_path)
    for second, spent in ((100, 200), (400, 500), (300, 1400)):
        machine(tmp_path, first=0, second=second, memory=0, elsewhere=0)
        assert counter.joules() == pytest.approx(spent * 1e-6)


def test_without_a_counter_the_reason_is_said(tmp_path: Path) -> None:
    for powercap in (tmp_path / "none", tmp_path):
        with pytest.raises(NoCounter, match="no RAPL counter of a CPU package"):
            open_counter("cpu", powercap)
    with pytest.raises(NoCounter, match="no counter is known of a device 'mps'"):
        open_counter("mps", tmp_path)


def test_one_counter_that_cannot_be_read_is_no_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, first=1, second=1, memory=1, elsewhere=1)
    refused, read = tmp_path / "intel-rapl:1" / "energy_uj", Path.read_text

    def read_text(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if path == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, encoding=encoding, errors=errors)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", read_text)
        with pytest.raises(NoCounter, match=r"intel-rapl:1/energy_uj: Permission denied$"):
            open_counter("cpu", tmp_path)
    refused.write_text("many\n")
    with pytest.raises(NoCounter, match="expected microjoules, got 'many'"):
        open_counter("cpu", tmp_path)
    refused.write_bytes(b"\xff\n")
    with pytest.raises(NoCounter, match="expected microjoules, got"):
        open_counter("cpu", tmp_path)
    refused.unlink()
    with pytest.raises(NoCounter, match=r"intel-rapl:1/energy_uj: No such file"):
        open_counter("cpu", tmp_path)


@dataclass
class Spent:
    """A counter that networks add to."""

    total: float = 5.0
    runs: int = 0
    covers: str = "what was added"
    block: float = 0.25

    def joules(self) -> float:
        return self.total

    def by(self, joules: Callable[[int], float]) -> Callable[[], None]:
        def run() -> None:
            self.runs += 1
            self.total += joules(self.runs)

        return run


def test_energy_is_that_of_an_image_and_of_runs_in_turn() -> None:
    spent = Spent()
    energy = compare_energy(spent.by(lambda _: 3.0), spent.by(lambda _: 4.0), spent, TIMING, 2)
    assert energy.joules == energy.low == energy.high == 1.5
    assert energy.base_joules == 2.0
    assert energy.ratio == energy.ratio_low == energy.ratio_high == 0.75
    assert (energy.rounds, energy.covers) == (ROUNDS, "what was added")
    assert spent.runs == ROUNDS * (3 + 1 + 2 + 1)  # 0.25 s in 0.1 s and in 0.2 s, and one before


def test_what_else_runs_hits_both() -> None:
    spent = Spent()
    load = [1.0 if number < 40 else 5.0 for number in range(200)]
    runs = [spent.by(lambda number, own=own: own * load[number]) for own in (3.0, 4.0)]
    energy = compare_energy(*runs, spent, TIMING, 1)
    assert energy.ratio == pytest.approx(0.75)
    assert (energy.low, energy.high) == (3.0, 15.0)


def test_a_counter_that_stands_still_is_none() -> None:
    spent = Spent()
    with pytest.raises(NoCounter, match="stands still"):
        compare_energy(spent.by(lambda _: 0.0), spent.by(lambda _: 0.0), spent, TIMING, 1)


class NVMLError(Exception):
    pass


def test_a_gpu_is_found_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {"GPU-beef": iter([1_000, 1_500, 4_000])}

    def energy(handle: str) -> int:
        if handle not in counted:
            raise NVMLError("Not Supported")
        return next(counted[handle])

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    named = {"cuda": "beef", "cuda:1": "cafe"}
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda own: SimpleNamespace(uuid=named[own])
    )
    counter = open_counter("cuda")
    assert [counter.joules(), counter.joules()] == [1.5, 4.0]
    assert counter.covers == "GPU energy, idle power included (NVML)"
    with pytest.raises(NoCounter, match="NVML: Not Supported"):
        open_counter("cuda:1")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoCounter, match="pip install nvidia-ml-py"):
        open_counter("cuda")


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (1234.5, "1.23e+03 J"),
        (2.0, "2 J"),
        (0.99999, "1 J"),
        (0.0352, "35.2 mJ"),
        (7e-7, "0.7 uJ"),
    ],
)
def test_energies_are_read_with_their_unit(joules: float, text: str) -> None:
    assert format_energy(joules) == text
