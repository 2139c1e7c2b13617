"""What an artifact's network costs to run stands on its card: time, and energy where read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import evosearch
from evosearch.errors import InputError
from evosearch.export import artifact as artifact_module
from evosearch.export import formats
from evosearch.export.artifact import Artifact, write_card
from evosearch.export.card import card_markdown, runtime_costs
from evosearch.latency import deployed
from evosearch.latency.deployed import Deployed, measure_deployed
from evosearch.latency.model import LatencyConfig
from evosearch.latency.runtimes import RUNTIMES, Runtime
from evosearch.models.build import ModelConfig
from evosearch.models.weights import save_weights
from evosearch.run.folder import RunFolder
from evosearch.space.mask import Mask
from tests.latency.test_energy import TIMING, zone
from tests.test_cli import InProcess, assert_refused, run  # noqa: F401  (run is a fixture)


def make(width: int = 8) -> nn.Module:
    torch.manual_seed(width)
    first, second = nn.Conv2d(1, width, 3), nn.Conv2d(width, 4, 3)
    return nn.Sequential(first, nn.ReLU(), second, nn.Flatten()).eval()


MODEL = ModelConfig(build="tests.latency.test_deployed:make", input=[1, 8, 8])
SMALL, WHOLE = 10 * 3 + (9 * 3 + 1) * 4, 10 * 8 + (9 * 8 + 1) * 4
"""Parameters with 3 and with 8 channels."""


@dataclass
class Machine:
    """A runtime that spends a microjoule for each parameter."""

    powercap: Path
    spent: int = 0

    def prepare(self, module: nn.Module, *_: object) -> "Run":
        return Run(self, params(module))

    def count(self, microjoules: int) -> None:
        self.spent += microjoules
        if self.powercap.exists():
            (self.powercap / "intel-rapl:0" / "energy_uj").write_text(str(self.spent))


@dataclass
class Run:
    machine: Machine
    params: int

    def __call__(self) -> None:
        self.machine.count(self.params)


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact_module, "verify_reload", lambda *_: None)  # a process of its own
        return Artifact.save(
            tmp_path_factory.mktemp("deployed") / "artifact",
            network=make(3),
            base=make(),
            mask=Mask({"0": np.arange(8) < 3}),
            model_section=MODEL.model_dump(mode="json", exclude_none=True),
            card={"plan": "three channels"},
        )


@pytest.fixture
def saved(made: Artifact) -> Iterator[Artifact]:
    yield made
    write_card(made.folder, made.card)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path / "powercap")
    for name in ("fake", "other"):
        monkeypatch.setitem(RUNTIMES, name, Runtime(prepare=machine.prepare))
    return machine


def measured(saved: Artifact, machine: Machine, *runtimes: str) -> Deployed:
    configs = [LatencyConfig(runtime=name, batch=4, threads=2) for name in runtimes]
    return measure_deployed(
        saved,
        make,
        configs,
        device="cpu",
        powercap=machine.powercap,
        stopwatch=lambda own, number: 1e-3 * own.params,
    )


def test_time_and_energy_are_the_network_s_beside_the_base_s(
    saved: Artifact, machine: Machine
) -> None:
    zone(machine.powercap, "intel-rapl:0", "package-0", 0)
    done = measured(saved, machine, "fake")
    (cost,) = done.costs
    assert done.no_energy is None
    assert cost.timing.seconds == pytest.approx(1e-3 * SMALL)
    assert cost.timing.ratio == pytest.approx(SMALL / WHOLE)
    assert cost.energy is not None
    assert cost.energy.joules == pytest.approx(SMALL * 1e-6 / 4)
    assert cost.energy.base_joules == pytest.approx(WHOLE * 1e-6 / 4)
    assert cost.energy.ratio == pytest.approx(SMALL / WHOLE)
    assert (cost.conditions.batch, cost.conditions.threads) == (4, 2)
    card = json.loads((saved.folder / "card.json").read_text())
    assert card == {**saved.card, "runtimes": [cost.to_json()]}
    assert runtime_costs(card) == (cost,)
    text = (saved.folder / "README.md").read_text()
    assert text == card_markdown(card)
    assert "energy of an image, this network" in text
    assert "package energy, idle power included (RAPL: package-0)" in text


def test_energy_that_is_not_read_stands_nowhere(saved: Artifact, machine: Machine) -> None:
    done = measured(saved, machine, "fake")
    assert done.no_energy == f"{machine.powercap}: no RAPL counter of a CPU package here"
    card = json.loads((saved.folder / "card.json").read_text())
    assert set(card["runtimes"][0]) == {"conditions", "timing"}
    text = (saved.folder / "README.md").read_text()
    assert "| fake, batch 4, 2 threads, torch " in text
    assert "energy" not in text


def test_a_runtime_is_replaced_and_others_stay(saved: Artifact, machine: Machine) -> None:
    first = measured(saved, machine, "fake", "other")
    zone(machine.powercap, "intel-rapl:0", "package-0", 0)
    again = measured(first.artifact, machine, "fake")
    costs = runtime_costs(Artifact.open(saved.folder).card)
    assert [cost.conditions.runtime for cost in costs] == ["other", "fake"]
    assert costs == (first.costs[1], again.costs[0])
    assert "| not read | not read | not read |" in (saved.folder / "README.md").read_text()


def test_a_runtime_that_fails_is_one_line_and_what_was_measured_stays(
    saved: Artifact, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Run:
        raise RuntimeError("no compiler\nis here")

    monkeypatch.setitem(RUNTIMES, "other", Runtime(prepare=broken))
    with pytest.raises(
        InputError, match=r"runtime 'other' cannot run its network: RuntimeError: no compiler$"
    ):
        measured(saved, machine, "fake", "other")
    (cost,) = runtime_costs(Artifact.open(saved.folder).card)
    assert cost.conditions.runtime == "fake"


def test_measurements_at_once_both_stand_on_the_card(saved: Artifact, machine: Machine) -> None:
    measured(saved, machine, "fake")
    measured(saved, machine, "other")  # opened before the first one was done
    costs = runtime_costs(Artifact.open(saved.folder).card)
    assert [cost.conditions.runtime for cost in costs] == ["fake", "other"]


def test_a_network_that_took_the_artifact_s_place_keeps_its_card(
    saved: Artifact, machine: Machine
) -> None:
    other = {**saved.card, "plan": "another", "files": {"weights.safetensors": {"bytes": 1}}}
    (saved.folder / "card.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="holds another network than when measuring began"):
        measured(saved, machine, "fake")
    assert json.loads((saved.folder / "card.json").read_text()) == other


def test_a_run_that_is_another_by_now_does_not_matter(
    saved: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployed, "compare", lambda *_: TIMING)
    save_weights(make(5), RunFolder(tmp_path).base)
    write_card(saved.folder, {**saved.card, "run": str(tmp_path)})
    done = evosearch.measure_artifact(saved.folder, device="cpu", trust=True)
    assert done.costs[0].timing == TIMING


def test_the_base_network_has_the_weights_of_the_run(
    saved: Artifact, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, seen = make(), []
    nn.init.ones_(base[0].weight)

    def prepare(module: nn.Module, *_: object) -> Run:
        seen.append(module.state_dict())
        return Run(machine, params(module))

    monkeypatch.setitem(RUNTIMES, "fake", Runtime(prepare=prepare))
    monkeypatch.setattr(deployed, "compare", lambda *_: TIMING)
    save_weights(base, RunFolder(tmp_path).base)
    write_card(saved.folder, {**saved.card, "run": str(tmp_path)})
    done = evosearch.measure_artifact(
        saved.folder, runtime=["fake"], batch=3, device="cpu", trust=True
    )
    assert done.costs[0].conditions.batch == 3
    small, whole = seen
    torch.testing.assert_close(whole, base.state_dict())
    torch.testing.assert_close(small, make(3).state_dict())


def test_the_command_measures_each_runtime_that_it_names(
    saved: Artifact,
    machine: Machine,
    run: InProcess,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deployed, "SECONDS", 0.02)
    monkeypatch.setattr(deployed, "open_counter", no_counter)
    asked = [
        "--runtime",
        "eager",
        "--runtime",
        "fake",
        "--batch",
        "2",
        "--device",
        "cpu",
        "--trust",
    ]
    done = run("measure", saved.folder, *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(", batch 2, 1 thread, ")[0] for line in lines[:2]] == [
        "eager",
        "fake",
    ]
    assert lines[2:] == ["no energy: not here", f"card: {saved.folder / 'README.md'}"]
    costs = runtime_costs(Artifact.open(saved.folder).card)
    assert [cost.conditions.runtime for cost in costs] == ["eager", "fake"]
    assert all(0 < cost.timing.low <= cost.timing.seconds <= cost.timing.high for cost in costs)
    assert [str(cost) for cost in costs] == lines[:2]


def no_counter(*_: object) -> None:
    raise deployed.NoCounter("not here")


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("onnxruntme", "unknown runtime 'onnxruntme': did you mean 'onnxruntime'"),
        ("onnxruntime", "pip install 'evosearch[onnx]'"),
    ],
)
def test_a_runtime_that_is_not_there_is_refused_before_any_timing(
    runtime: str,
    expected: str,
    saved: Artifact,
    run: InProcess,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    monkeypatch.setattr(deployed, "compare", None)
    asked = ["--runtime", "eager", "--runtime", runtime, "--device", "cpu", "--trust"]
    assert_refused(run("measure", saved.folder, *asked, cwd=tmp_path), expected)
    assert json.loads((saved.folder / "card.json").read_text()) == saved.card
