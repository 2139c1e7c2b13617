import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.errors import InputError
from evosearch.latency import profile as profiling
from evosearch.latency.journal import Journal
from evosearch.latency.model import LatencyModel
from evosearch.latency.profile import layer_kinds, profile, random_widths
from evosearch.latency.runtimes import RUNTIMES, Runtime
from evosearch.latency.steps import find_steps
from evosearch.latency.stopwatch import torch_stopwatch
from evosearch.run.profiling import profile_space
from tests.latency.fakes import FakeRun, FakeStopwatch, fake_meter

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "latency"


def test_a_device_without_noise_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch())
    model = profile(meter)
    assert model.steps == {}
    assert model.worst_error < 1e-3
    assert model.noise == 0
    assert (model.fitted, model.validated) == (20, 12)  # eight were predicted: that is enough
    space = model.timed(meter.discovery.space)
    assert space.base_cost.latency == pytest.approx(model.base_picoseconds, rel=1e-3)
    assert space.smallest_cost.latency < space.base_cost.latency
    assert space.digest != meter.discovery.space.digest


@dataclass
class Odd(FakeStopwatch):
    """A device on which odd widths take longer: no form in the widths says so."""

    slower: float = 0.2

    def __call__(self, run: FakeRun, number: int) -> float:
        odd = sum(m.out_channels % 2 for m in run.module.modules() if isinstance(m, nn.Conv2d))
        return super().__call__(run, number) * (1 + self.slower * odd)


def test_networks_join_the_fit_as_long_as_others_are_predicted_badly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = profile(fake_meter(monkeypatch, Odd()))
    assert (model.fitted, model.validated) == (44, 12)
    assert model.median_error > 0.02


def test_no_more_than_one_block_is_timed_where_latency_falls_evenly(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch())
    prepared: list[str] = []

    def prepare(module: nn.Module, images: torch.Tensor, threads: int) -> FakeRun:
        prepared.append(f"{module!r} {tuple(images.shape)}")
        return FakeRun(module, images)

    monkeypatch.setitem(RUNTIMES, "fake", Runtime(prepare=prepare))
    journal = Journal(cache / "layers.jsonl")
    assert find_steps(meter, journal) == {}
    assert len(prepared) == len(set(prepared))  # no layer is compiled twice
    # Of a group of 16 the last block of 8, 4 and 2, and its half: 8, 12, 14 and 15 against 16; of
    # one of 32 also of 16. Each passes two layers.
    pairs = [line for line in (cache / "layers.jsonl").read_text().splitlines() if line]
    assert len(pairs) == 2 * (4 + 5 + 4)


def test_steps_are_found_and_no_width_amid_one_is_legal(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch(step=8))
    model = profile(meter)
    assert model.steps == {"first": 8, "second": 8, "third": 8}
    space = model.timed(meter.discovery.space)
    assert [g.legal_widths() for g in space.groups] == [(8, 16), (8, 16, 24, 32), (8, 16)]
    assert model.median_error < 0.1


def test_noise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = profile(fake_meter(monkeypatch, FakeStopwatch(noise=0.4)))
    assert 0.01 < model.noise < 0.2
    assert model.median_error < 0.1
    assert model.fitted < 44  # no closer than timings are known


def test_an_interrupted_profile_goes_on(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    whole = FakeStopwatch()
    profile(fake_meter(monkeypatch, whole))
    next(cache.glob("*.json")).unlink()
    broken = FakeStopwatch(fail_after=whole.asked // 2)
    with pytest.raises(KeyboardInterrupt):
        profile(fake_meter(monkeypatch, broken))
    journal = next(cache.glob("*.jsonl"))
    with journal.open("a") as file:
        file.write('["network [1, 2')  # what a kill leaves
    rest = FakeStopwatch()
    profile(fake_meter(monkeypatch, rest))
    assert rest.asked < 0.6 * whole.asked
    assert not journal.exists()


def test_a_finished_profile_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile(fake_meter(monkeypatch, FakeStopwatch()))
    again = FakeStopwatch()
    assert profile(fake_meter(monkeypatch, again)) == first
    assert again.asked == 0


def test_layers_of_one_kind_share_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch())
    kinds = layer_kinds(meter.model, meter.discovery)
    assert kinds["first"] == kinds["second"] == kinds["third"] == "3x3 kernel, 36 positions"
    assert kinds["head"] == "no kernel, 1 positions"


def test_random_networks_are_small_and_large(monkeypatch: pytest.MonkeyPatch) -> None:
    space = fake_meter(monkeypatch, FakeStopwatch()).discovery.space
    rng = np.random.default_rng(0)
    shares = [random_widths(space, rng).sum() / space.full_widths.sum() for _ in range(60)]
    assert min(shares) < 0.25
    assert max(shares) > 0.9


def test_the_digits_really(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"FIRST": 4, "MORE": 2, "MOST": 6, "VALIDATED": 3}.items():
        monkeypatch.setattr(profiling, name, number)
    monkeypatch.setattr("evosearch.latency.steps.STEPS", (8,))
    monkeypatch.setattr("evosearch.latency.stopwatch.MOST", 15)
    path = ROOT / "search_spaces" / "digits_resnet.toml"
    stages: list[str] = []
    model, space = profile_space(path, {"batch": 16}, "cpu", stages.append)
    assert model.conditions.batch == 16
    assert "torch" in model.conditions.versions
    assert space.base_cost.latency > 0
    assert stages[-1] == "latency of random networks: 9 of 9 networks at most"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["exported", "compile"])
def test_a_profile_is_made_from_end_to_end(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    for name, number in {"FIRST": 4, "MORE": 2, "MOST": 6, "VALIDATED": 2}.items():
        monkeypatch.setattr(profiling, name, number)
    monkeypatch.setattr("evosearch.latency.steps.STEPS", (8,))
    monkeypatch.setattr("evosearch.latency.stopwatch.MOST", 15)
    meter = fake_meter(monkeypatch, torch_stopwatch(1), runtime=runtime)
    model = profile(meter)
    assert model.conditions.runtime == runtime
    assert model.fitted in (4, 6)
    assert model.timed(meter.discovery.space).base_cost.latency > 0
    assert profile(meter) == model


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="not a latency model"):
        LatencyModel.load(tmp_path / "x.json")
