"""A runtime and a clock without time: what a layer takes is arithmetic on its shape."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyConfig
from evosearch.latency.runtimes import RUNTIMES, Runtime
from evosearch.latency.stopwatch import Stopwatch
from evosearch.models.build import ModelConfig
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from tests.toys import IDENTITY

OVERHEAD, PER_MAC, PER_OUTPUT = 50e-6, 1e-9, 4e-9
PIXELS = 36


@dataclass(frozen=True)
class FakeRun:
    module: nn.Module
    images: Tensor

    def __call__(self) -> None:
        pass


FAKE_RUNTIME = Runtime(prepare=lambda module, images, threads: FakeRun(module, images))


@dataclass
class FakeStopwatch:
    """Tells seconds by the layers of a network; a step pads the outputs of a layer."""

    step: int = 1
    noise: float = 0.0
    factor: float = 1.0
    asked: int = 0
    fail_after: int | None = None
    rng: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))

    def __call__(self, run: FakeRun, number: int) -> float:
        self.asked += 1
        if self.fail_after is not None and self.asked > self.fail_after:
            raise KeyboardInterrupt
        whole = not isinstance(run.module, nn.Conv2d | nn.Linear)
        seconds = OVERHEAD if whole else 0.0
        for module in run.module.modules():
            if isinstance(module, nn.Conv2d):
                padded = -(-module.out_channels // self.step) * self.step
                inputs = -(-module.in_channels // self.step) * self.step
                seconds += PIXELS * padded * (9 * inputs * PER_MAC + PER_OUTPUT)
            elif isinstance(module, nn.Linear):
                seconds += module.out_features * (module.in_features * PER_MAC + PER_OUTPUT)
        load = 1 + self.noise * float(torch.rand(1, generator=self.rng))
        return seconds * load * (self.factor if seconds < self.base else 1.0)

    base: float = 0.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(torch.relu(self.third(x)).mean((2, 3)))


def fake_meter(
    monkeypatch: pytest.MonkeyPatch,
    stopwatch: Stopwatch,
    discovery: Discovery | None = None,
    runtime: str = "fake",
) -> Meter:
    """Returns a meter of a small network whose clock is arithmetic."""
    monkeypatch.setitem(RUNTIMES, "fake", FAKE_RUNTIME)
    torch.manual_seed(0)
    model = Net().eval()
    found = discovery or discover(model, (torch.randn(2, 1, 6, 6),), GroupRules(), 0)
    return Meter(
        model=model,
        section=ModelConfig(build="tests.latency.fakes:Net", input=[1, 6, 6]),
        discovery=found,
        identity=IDENTITY,
        config=LatencyConfig(runtime=runtime),
        device="cpu",
        stopwatch=stopwatch,
    )
