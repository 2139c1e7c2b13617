"""torchvision's detectors, which torch.export cannot follow: proven in part, cut, and scored."""

import numpy as np
import pytest
import torch

from evosearch.calling import call
from evosearch.data.labels import read_labels
from evosearch.data.splits import SearchSplit
from evosearch.models.build import ModelConfig, build_model
from evosearch.refit.norms import recalibrate
from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.tasks.detection import detection
from evosearch.tasks.scoring import score
from tests.data.helpers import images_of
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
def test_a_detector_is_proven_cut_and_scored(name: str) -> None:
    config = ModelConfig(build=f"torchvision:{name}", input=(3, SIDE, SIDE), part=PARTS[name])
    model = build_model(config)
    rng = torch.Generator().manual_seed(0)
    example = (torch.rand(2, 3, SIDE, SIDE, generator=rng),)
    recalibrate(model, list(example))  # without statistics of BatchNorm its maps fade
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
    boxes = np.array([[20, 30, 120, 160], [90, 60, 300, 310]], np.float32)
    labels = [{"boxes": boxes, "labels": np.array([1, label])} for label in (2, 3)]
    search = SearchSplit(
        images=images_of(example[0]), labels=read_labels(labels), indices=torch.arange(2)
    )
    base, own = (score(each, search, task=detection()) for each in (model, network))
    with masked(model, space.groups, found.layers, mask) as reference:
        expected = score(reference, search, task=detection())
    assert own.metric == "mAP"
    assert own.loss == pytest.approx(expected.loss, rel=1e-4)
    assert own.loss != pytest.approx(base.loss, rel=1e-3)
