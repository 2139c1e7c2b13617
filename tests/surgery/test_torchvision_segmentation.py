"""torchvision's segmentation networks: proven whole, cut to half of their FLOPs, and scored."""

import numpy as np
import pytest
import torch

from evosearch.data.labels import read_labels
from evosearch.data.splits import SearchSplit
from evosearch.models.build import ModelConfig, build_model
from evosearch.refit.norms import recalibrate
from evosearch.space.budget import Budget
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.tasks.config import TaskConfig, load_task
from evosearch.tasks.scoring import score
from tests.data.helpers import images_of

SIDE, CLASSES = 64, 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "fcn_resnet50"])
def test_a_segmentation_network_is_proven_cut_and_scored(name, tmp_path):
    config = ModelConfig(
        build=f"torchvision:{name}", input=(3, SIDE, SIDE), kwargs={"num_classes": CLASSES}
    )
    model = build_model(config)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, SIDE, SIDE, generator=rng)
    recalibrate(model, [images])  # without statistics of BatchNorm its maps fade
    found = discover(model, (images[:2],), GroupRules(), seed=0)
    space = found.space
    assert all(proof.failure is None for proof in found.proofs)
    assert not any("proof" in part.reason for part in space.frozen)
    assert space.prunable_share >= 0.99

    widths = uniform_widths(space, Budget.exactly(macs=space.base_cost.macs // 2))
    draws = np.random.default_rng(0)
    mask = space.top_channels(widths, {own.name: draws.random(own.size) for own in space.groups})
    network = compact(model, space.groups, mask).eval()
    cost = space.cost(mask)
    assert sum(p.numel() for p in network.parameters()) == cost.params
    assert 0.4 < cost.macs / space.base_cost.macs <= 0.5

    maps = torch.randint(0, CLASSES, (8, SIDE, SIDE), generator=rng)
    search = SearchSplit(
        images=images_of(images), labels=read_labels(maps), indices=torch.arange(8)
    )
    task = load_task(TaskConfig(name="segmentation"), tmp_path)
    base = score(model, search, task=task)
    recalibrate(network, [images])
    own = score(network, search, task=task)
    with masked(model, space.groups, found.layers, mask) as reference:
        recalibrate(reference, [images])
        expected = score(reference, search, task=task)
    assert own.metric == "mIoU"
    assert 0 < own.accuracy == pytest.approx(expected.accuracy, abs=1e-3)
    assert own.loss == pytest.approx(expected.loss, rel=1e-5)
    assert own.loss != pytest.approx(base.loss, rel=1e-3)
