"""Networks with attention from end to end: a search, and the network that it picks."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

import evosearch
from evosearch.surgery.counting import count_macs

NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "vision_transformer": ({"side": 32}, 6),
    "swin": ({}, 4),
}
"""A builder in `tests.surgery.attention`, its arguments, and how many heads attention has."""


def space_file(folder: Path, name: str) -> Path:
    images = {"size": 48, "image_size": [3, 32, 32], "num_classes": 5}
    space: dict[str, Any] = {
        "model": {
            "build": f"tests.surgery.attention:{name}",
            "input": [3, 32, 32],
            "kwargs": NETWORKS[name][0],
            "weights": "built",
        },
        "data": {"name": "fake", "calibration": 12, "search": 24, "kwargs": images},
        "search": {"device": "cpu"},
    }
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(space))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_search_cuts_whole_heads(name: str, tmp_path: Path) -> None:
    space = space_file(tmp_path, name)
    run = evosearch.search(space, flops="80%", trials=4, out=tmp_path / "run")
    trials = run.study.trials
    assert [trial.error for trial in trials] == [None] * 4
    network = run.network(pick="best")
    assert any(
        module.num_heads < NETWORKS[name][1]
        for module in network.modules()
        if hasattr(module, "num_heads")
    )
    macs = count_macs(network, (torch.randn(2, 3, 32, 32),))
    assert macs in [trial.cost.macs for trial in trials]
