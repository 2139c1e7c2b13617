"""The steps of `evosearch/latency/README.md`, followed as they are written."""

import tomllib

import numpy as np
import pytest
import torch

from evosearch.latency import runtimes
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyConfig
from evosearch.latency.runtimes import RUNTIMES
from evosearch.models.build import ModelConfig
from evosearch.models.zoo import digits_resnet
from evosearch.surgery.discovery import GroupRules, discover
from tests.readmes import ROOT, code_blocks, edited, inline_code
from tests.surgery.networks import randomized
from tests.toys import IDENTITY


def test_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "RUNTIMES: dict[str, Runtime] = {\n"
    (function,) = code_blocks("latency", "python")
    row = inline_code("latency", '"channels_last"')
    shipped = edited(
        runtimes,
        ("import logging\n", "import copy\nimport logging\n"),
        ("Inputs, arguments\n", "Inputs, arguments, each\n"),
        (table, f"{function}\n\n{table}    {row}\n"),
    )
    monkeypatch.setitem(RUNTIMES, "channels_last", shipped.RUNTIMES["channels_last"])

    model = randomized(digits_resnet(width=4)).eval()
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = model(images).numpy()
    found = RUNTIMES["channels_last"].prepare(model, images, 1)()
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert model.conv1.weight.is_contiguous()

    discovery = discover(model, (images,), GroupRules(), 0)
    meter = Meter(
        model=model,
        section=ModelConfig(build="evosearch.models.zoo:digits_resnet", input=(1, 8, 8)),
        discovery=discovery,
        identity=IDENTITY,
        config=LatencyConfig(runtime="channels_last", batch=2),
        device="cpu",
    )
    assert meter.bench.conditions.runtime == "channels_last"
    assert list(meter.bench.conditions.versions) == ["torch"]
    timing = meter.time(discovery.space.full_mask(), seconds=0.0)
    assert 0 < timing.low <= timing.seconds <= timing.high


def test_the_section_in_the_readme_is_one() -> None:
    (section,) = code_blocks("latency", "toml")
    config = LatencyConfig(**tomllib.loads(section)["search"]["latency"])
    assert config == LatencyConfig(runtime="eager", batch=64, threads=1)
    for name in RUNTIMES:
        assert name in section


def test_files_that_the_readme_names_exist() -> None:
    text = (ROOT / "latency" / "README.md").read_text()
    for name in ("evosearch/aims/latency.py", "evosearch/study/latency_certificate.py"):
        assert name in text
        assert (ROOT.parent / name).is_file()
