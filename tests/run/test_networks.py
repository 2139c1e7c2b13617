"""Real networks from end to end: a candidate is built, a search and a fine-tuning end well."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch

import evosearch
from evosearch.models.precision import Numerics
from evosearch.refit.building import Builder
from evosearch.space.budget import Budget
from evosearch.surgery.discovery import GroupRules, discover
from tests.surgery.realnetworks import NETWORKS, classifier


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_compensated_candidate_of_a_real_network(name: str) -> None:
    """At half its MACs, or midway to the least where that is more, and with nothing cut at all."""
    torch.manual_seed(0)
    side = NETWORKS[name][1]
    model, images = classifier(name).eval(), torch.randn(16, 3, side, side)
    found = discover(model, (images[:2],), GroupRules(), seed=1)
    space = found.space
    least, whole = space.smallest_cost.macs, space.base_cost.macs
    budget = Budget.exactly(macs=max(whole // 2, (least + whole) // 2))
    mask = space.sample(np.random.default_rng(0), budget)
    builder = Builder(
        model=model,
        discovery=found,
        batches=list(images.split(8)),
        images=16,
        build="compensated",
        numerics=Numerics(precision="float32", layout="channels_last"),
        seed=0,
    )
    with torch.no_grad():
        expected, outputs = model(images), builder.candidate(mask)(images)
        assert expected.std(0).mean() > 1e-3 * expected.abs().max() > 0
        assert outputs.shape == expected.shape
        assert outputs.isfinite().all()
        whole_again = builder.candidate(space.full_mask())(images)
        assert (whole_again - expected).abs().max() < 1e-4 * expected.abs().max()


def space_file(folder: Path, name: str) -> Path:
    side = NETWORKS[name][1]
    images = {"size": 160, "image_size": [3, side, side], "num_classes": 5}
    space: dict[str, Any] = {
        "model": {
            "build": "tests.surgery.realnetworks:classifier",
            "input": [3, side, side],
            "kwargs": {"name": name},
            "weights": "built",
        },
        "data": {"name": "fake", "calibration": 32, "search": 64, "kwargs": images},
        "search": {"strategy": "random", "device": "cpu", "keep_ratios": [0.5]},
        "finetune": {"epochs": 1, "batch_size": 64, "lr": 1e-4},
    }
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(space))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_search_and_a_fine_tuning_of_a_real_network(name: str, tmp_path: Path) -> None:
    space = space_file(tmp_path, name)
    at = "90%" if name in ("vit_b_16", "swin_t") else "60%"
    run = evosearch.search(space, flops=at, trials=4, out=tmp_path / "run")
    assert [trial.error for trial in run.study.trials] == [None] * 4
    done = evosearch.finetune(run.folder, pick="best")
    assert done.distillation.best_epoch in (0, 1)
    loaded = done.artifact.load(lambda: classifier(name))
    side = NETWORKS[name][1]
    with torch.no_grad():
        assert loaded(torch.randn(2, 3, side, side)).isfinite().all()
