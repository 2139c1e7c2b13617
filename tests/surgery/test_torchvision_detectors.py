"""torchvision's detectors, which torch.export cannot follow: traced in part, proven, and cut."""

import pytest
import torch

from evosearch.calling import call
from evosearch.models.build import ModelConfig, build_model
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover
from tests.surgery.cases import random_masks, tensors

PARTS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("backbone",),
    "ssdlite320_mobilenet_v3_large": ("backbone", "head.classification_head"),
}
SIDE = 320
LEAST = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 0.2,
    "ssdlite320_mobilenet_v3_large": 0.65,
}
"""Share of all MACs in layers with a prunable side, at least."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_detector_is_proven_and_cut(name: str) -> None:
    config = ModelConfig(build=f"torchvision:{name}", input=(3, SIDE, SIDE), part=PARTS[name])
    model = build_model(config)
    rng = torch.Generator().manual_seed(0)
    example = (torch.rand(2, 3, SIDE, SIDE, generator=rng),)
    found = discover(model, example, GroupRules(), seed=0, parts=config.parts)
    space = found.space
    assert all(proof.failure is None for proof in found.proofs)
    assert not any("proof" in part.reason for part in space.frozen)
    assert space.prunable_share >= LEAST[name]
    for mask in random_masks(space, 2):
        network = compact(model, space.groups, mask).eval()
        assert sum(p.numel() for p in network.parameters()) == space.cost(mask).params
        with torch.no_grad():
            outputs = tensors(call(network, example))
        assert outputs
        assert all(bool(output.isfinite().all()) for output in outputs)
