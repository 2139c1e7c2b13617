"""The networks that people really have, and classifiers made of them."""

from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision import models

from evosearch.models.zoo import cifar_resnet
from evosearch.refit.norms import recalibrate


def named(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, **options)


def backbone(name: str) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, weights_backbone=None).backbone


def whole(name: str) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, weights_backbone=None)


def of_timm(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False)


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
    "convnext_tiny": (named("convnext_tiny"), 64, 0.93),
    "fasterrcnn_resnet50_fpn": (backbone("fasterrcnn_resnet50_fpn"), 64, 0.95),
    "ssdlite320_mobilenet_v3_large": (backbone("ssdlite320_mobilenet_v3_large"), 96, 0.95),
    "retinanet_resnet50_fpn": (backbone("retinanet_resnet50_fpn"), 64, 0.95),
    "deeplabv3_resnet50": (whole("deeplabv3_resnet50"), 64, 0.95),
    "lraspp_mobilenet_v3_large": (whole("lraspp_mobilenet_v3_large"), 64, 0.95),
    "vit_b_16": (named("vit_b_16", image_size=64), 64, 0.95),
    "swin_t": (named("swin_t"), 64, 0.90),
    "cifar_resnet20": (lambda: cifar_resnet(20), 32, 0.95),
    "cifar_resnet56": (lambda: cifar_resnet(56), 32, 0.95),
    "tf_efficientnet_lite0": (of_timm("tf_efficientnet_lite0"), 64, 0.95),
    "resnetv2_50": (of_timm("resnetv2_50"), 64, 0.95),
    "repvgg_a0": (of_timm("repvgg_a0"), 64, 0.95),
    "res2net50_26w_4s": (of_timm("res2net50_26w_4s"), 64, 0.95),
    "mixnet_s": (of_timm("mixnet_s"), 64, 0.95),
    "cspresnet50": (of_timm("cspresnet50"), 64, 0.95),
}
"""How to build it, the sides of its images, and the least prunable share of its MACs."""


class Pooled(nn.Module):
    """A network that gives maps, made a classifier: the mean of each channel is a logit."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        maps = tree_leaves(self.body(images))
        return torch.cat([one.mean((2, 3)) for one in maps], 1)


def classifier(name: str) -> nn.Module:
    """Builds a network of the table, or a classifier of it where it gives maps.

    Its BatchNorms have the statistics of noise: without any, signals fade in deep networks. A
    head that begins at zero begins elsewhere: without that, all outputs are the same.
    """
    model, side = NETWORKS[name][0](), NETWORKS[name][1]
    noise = torch.randn(16, 3, side, side, generator=torch.Generator().manual_seed(0))
    recalibrate(model, [noise])
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    with torch.no_grad():
        gives_maps = isinstance(model.eval()(noise[:1]), Mapping)
    return Pooled(model) if gives_maps else model
