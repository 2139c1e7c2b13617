"""torchvision's detectors: whole ones fine-tuned for a step, a small one on scenes of digits."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead

from evosearch.data import splits as data
from evosearch.data.labels import read_labels
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.tasks.detection import detection
from evosearch.tasks.scoring import score
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from tests.data.helpers import images_of

DETECTION = detection()
SCENES = Path(__file__).parents[2] / "scripts" / "examples" / "digit_scenes.py"


def halved(network, side, channels=3):
    """Returns a copy of a detector whose body has the heavier half of the channels."""
    body = network.backbone
    groups = discover(body, (torch.rand(2, channels, side, side),), GroupRules(), 0).space.groups
    tensors = body.state_dict()

    def heaviest(group):
        writer = next(member for member in group.members if tensors[member.tensor].ndim == 4)
        rows = tensors[writer.tensor].movedim(writer.dim, 0).flatten(1).square().sum(1)
        sizes = rows[torch.as_tensor(writer.positions)].reshape(group.size, -1).sum(1)
        widths = np.array(group.legal_widths())
        count = widths[np.abs(widths - group.size / 2).argmin()]
        kept = np.zeros(group.size, bool)
        kept[sizes.argsort(descending=True)[:count].numpy()] = True
        return kept

    student = copy.deepcopy(network)
    student.backbone = compact(body, groups, Mask({own.name: heaviest(own) for own in groups}))
    return student


def weights(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"min_size": 64, "max_size": 64}, 64),
        ("ssdlite320_mobilenet_v3_large", {}, 96),  # it enlarges all images to 320 px itself
    ],
)
def test_a_step_of_fine_tuning(name, options, side):
    rng = np.random.default_rng(0)

    def part(kind):
        boxes = np.array([[8, 8, 40, 50], [20, 10, 60, 60]], np.float32)
        labels = [{"boxes": boxes, "labels": rng.integers(1, 4, 2)} for _ in range(2)]
        pixels = rng.random((2, 3, 64, 64), np.float32)
        return kind(
            images=images_of(torch.from_numpy(pixels)),
            labels=read_labels(labels),
            indices=torch.arange(2),
        )

    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, name)
    network = build(weights=None, weights_backbone=None, num_classes=4, **options).eval()
    student = halved(network, side)
    assert weights(student.backbone) < 0.7 * weights(network.backbone)
    before = copy.deepcopy(student.state_dict())
    config = FinetuneConfig(epochs=1, batch_size=2, lr=1e-3, alpha=0.0, precision="float32")
    train, search = part(data.TrainSplit), part(data.SearchSplit)
    done = distil(network, student, train, search, config, 0, task=DETECTION)
    assert np.isfinite([record.search.loss for record in done.history]).all()
    assert np.isfinite(done.history[1].train_loss)
    if done.best_epoch:
        assert any(not torch.equal(own, before[key]) for key, own in student.state_dict().items())
    assert score(student, search, task=DETECTION) == done.best.search


class Body(nn.Module):
    """Feature maps of a quarter of the image's size."""

    out_channels = 32

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*block(1, 16), *block(16, 32), *block(32, 64, 1))
        self.put = nn.Conv2d(64, 32, 1)

    def forward(self, images):
        return {"0": self.put(self.layers(images))}


def block(channels, wider, stride=2):
    convolution = nn.Conv2d(channels, wider, 3, stride, 1, bias=False)
    return convolution, nn.BatchNorm2d(wider), nn.ReLU()


@pytest.mark.slow
def test_a_small_one_learns_scenes_of_digits_and_is_cut(monkeypatch):
    spec = importlib.util.spec_from_file_location("digit_scenes", SCENES)
    scenes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scenes)
    monkeypatch.setattr(scenes, "SPLITS", {"train": 400, "search": 60})
    found = scenes.detection()

    def part(name, kind):
        images, labels = found[name]
        return kind(
            images=images_of(torch.from_numpy(images).float() / 255),
            labels=read_labels(labels),
            indices=torch.arange(len(labels)),
        )

    train, search = part("train", data.TrainSplit), part("search", data.SearchSplit)
    torch.manual_seed(0)
    network = RetinaNet(
        Body(),
        num_classes=10,
        min_size=64,
        max_size=64,
        image_mean=[0.13],
        image_std=[0.25],
        anchor_generator=AnchorGenerator(((12, 18, 24),), ((1.0,),)),
        head=RetinaNetHead(32, 3, 10, norm_layer=nn.BatchNorm2d),
        detections_per_img=20,
        topk_candidates=100,
    )
    config = TrainConfig(epochs=20, batch_size=16, lr=0.05)
    train_base(network, train, None, config, 0, task=DETECTION)
    base = score(network, search, task=DETECTION).accuracy
    student = halved(network, 64, channels=1)
    config = FinetuneConfig(epochs=6, batch_size=16, lr=0.02, alpha=0.0, attention=1.0)
    done = distil(network, student, train, search, config, 0, task=DETECTION)
    cut, trained = done.history[0].search.accuracy, done.best.search.accuracy
    assert base > 0.2
    assert trained > cut + 0.1
    assert trained > base - 0.15
