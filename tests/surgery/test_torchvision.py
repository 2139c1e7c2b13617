"""The networks that people really have: proven whole, cost exact, most of their MACs prunable."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from evosearch.models.zoo import cifar_resnet
from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.counting import count_macs
from evosearch.surgery.discovery import GroupRules, discover
from tests.surgery.cases import random_masks, tensors
from tests.surgery.networks import randomized


def named(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, **options)


def backbone(name: str) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, weights_backbone=None).backbone


def whole(name: str) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, weights_backbone=None)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "resnet18": (named("resnet18"), 64, 0.95),
    "resnet50": (named("resnet50"), 64, 0.95),
    "resnext50_32x4d": (named("resnext50_32x4d"), 64, 0.95),
    "regnet_x_400mf": (named("regnet_x_400mf"), 64, 0.95),
    "regnet_y_400mf": (named("regnet_y_400mf"), 64, 0.95),
    "vgg16_bn": (named("vgg16_bn"), 64, 0.95),
    "vgg16": (named("vgg16"), 64, 0.95),
    "mobilenet_v2": (named("mobilenet_v2"), 64, 0.95),
    "mobilenet_v3_small": (named("mobilenet_v3_small"), 64, 0.95),
    "mobilenet_v3_large": (named("mobilenet_v3_large"), 64, 0.95),
    "mnasnet1_0": (named("mnasnet1_0"), 64, 0.95),
    "efficientnet_b0": (named("efficientnet_b0"), 64, 0.95),
    "efficientnet_v2_s": (named("efficientnet_v2_s"), 64, 0.95),
    "densenet121": (named("densenet121"), 64, 0.95),
    "googlenet": (named("googlenet", init_weights=False), 64, 0.95),
    "inception_v3": (named("inception_v3", init_weights=False), 96, 0.95),
    "squeezenet1_0": (named("squeezenet1_0"), 64, 0.95),
    "shufflenet_v2_x1_0": (named("shufflenet_v2_x1_0"), 64, 0.95),
    "convnext_tiny": (named("convnext_tiny"), 64, 0.90),
    "fasterrcnn_resnet50_fpn": (backbone("fasterrcnn_resnet50_fpn"), 64, 0.95),
    "ssdlite320_mobilenet_v3_large": (backbone("ssdlite320_mobilenet_v3_large"), 96, 0.95),
    "retinanet_resnet50_fpn": (backbone("retinanet_resnet50_fpn"), 64, 0.95),
    "deeplabv3_resnet50": (whole("deeplabv3_resnet50"), 64, 0.95),
    "lraspp_mobilenet_v3_large": (whole("lraspp_mobilenet_v3_large"), 64, 0.95),
    "vit_b_16": (named("vit_b_16", image_size=64), 64, 0.60),
    "swin_t": (named("swin_t"), 64, 0.25),
    "cifar_resnet20": (lambda: cifar_resnet(20), 32, 0.95),
    "cifar_resnet56": (lambda: cifar_resnet(56), 32, 0.95),
}
"""How to build it, the sides of its images, and the least prunable share of its MACs."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_real_network(name: str) -> None:
    build, side, least = NETWORKS[name]
    model, example = randomized(build()), (torch.randn(2, 3, side, side),)
    found = discover(model, example, GroupRules(), seed=1)
    space = found.space
    assert found.space.prunable_share >= least
    assert all(proof.error <= 1e-9 and proof.effect > 1e-3 for proof in found.proofs)
    assert not [part for part in space.frozen if "proof" in part.reason]
    if name in ("vit_b_16", "swin_t"):
        assert [group.name for group in space.groups if ".mlp." in group.name] == [*space.sizes]
        assert len(space.sizes) == 12
    for mask in random_masks(space, 25):
        with torch.no_grad():
            small = compact(model, space.groups, mask)
            cost = space.cost(mask)
            assert count_macs(small, example) == cost.macs
            assert sum(p.numel() for p in small.parameters()) == cost.params
    with torch.no_grad(), masked(model, space.groups, found.layers, mask) as reference:
        expected = tensors(reference(*example))
        for ours, theirs in zip(tensors(small(*example)), expected, strict=True):
            scale = theirs.abs().max()
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-4)
