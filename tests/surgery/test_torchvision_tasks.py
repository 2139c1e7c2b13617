"""torchvision's detectors and segmentation networks: traced whole or in part, proven, and cut."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from evosearch.calling import call
from evosearch.models.build import ModelConfig, build_model
from evosearch.space.budget import Budget
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.surgery.tracing.export import batch_size
from tests.surgery.cases import tensors

PARTS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("backbone",),
    "ssdlite320_mobilenet_v3_large": ("backbone", "head.classification_head"),
    "fcn_resnet50": (),
    "deeplabv3_mobilenet_v3_large": (),
}
SIDES = {name: 320 if "320" in name else 64 for name in PARTS}
LEAST = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 0.0,
    "ssdlite320_mobilenet_v3_large": 0.0,
    "fcn_resnet50": 0.0,
    "deeplabv3_mobilenet_v3_large": 0.0,
}
"""Share of the traced MACs in layers with a prunable side, at least."""


def macs_of(model: nn.Module, example: tuple[torch.Tensor, ...]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        call(model, example)
    return int(counter.get_total_flops()) // (2 * batch_size(example))


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_network_for_a_task_is_proven_and_cut(name: str) -> None:
    side = SIDES[name]
    config = ModelConfig(build=f"torchvision:{name}", input=(3, side, side), part=PARTS[name])
    model = build_model(config)
    rng = torch.Generator().manual_seed(0)
    example = (torch.rand(2, 3, side, side, generator=rng),)
    found = discover(model, example, GroupRules(), seed=0, parts=config.parts)
    space = found.space
    print(name, space, f"{space.prunable_share:.3f}")
    for part in space.frozen:
        if part.reason != "network output":
            print(part)
    assert all(proof.failure is None for proof in found.proofs)
    assert not any("proof" in part.reason for part in space.frozen)
    assert space.prunable_share >= LEAST[name]
    half = space.fit_widths(space.full_widths // 2, Budget(bounds={}))
    mask = space.top_channels(half, {g.name: torch.arange(g.size).numpy() for g in space.groups})
    network = compact(model, space.groups, mask).eval()
    assert sum(p.numel() for p in network.parameters()) == space.cost(mask).params
    with torch.no_grad():
        outputs = call(network, example)
    assert len(tensors(outputs)) > 0
