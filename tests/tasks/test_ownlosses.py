"""Networks that compute their own loss: small ones by hand, and a detector of torchvision's."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import FrozenBatchNorm2d

from evosearch.data import splits as data
from evosearch.data.labels import read_labels
from evosearch.errors import InputError
from evosearch.models.modes import evaluating
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.tasks.config import TaskConfig, load_task
from evosearch.tasks.detection import detection
from evosearch.tasks.fitting import require_fit
from evosearch.tasks.scoring import image_scores
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.elastic import ElasticConfig, train_elastic
from tests.data.helpers import images_of

DETECTION = detection()
HEAD = "head.classification_head.conv.0.0.weight"
BOX = {"boxes": np.array([[4.0, 4, 20, 20]], np.float32), "labels": np.array([1])}


def split(kind, count=2, label=BOX, side=32):
    rng = np.random.default_rng(0)
    return kind(
        images=images_of(torch.from_numpy(rng.random((count, 1, side, side), np.float32))),
        labels=read_labels([label] * count),
        indices=torch.arange(count),
    )


class Norms(nn.Module):
    """Its loss is what it makes of the sum of its pixels, and a number that it draws."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5))
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = []

    def forward(self, images, targets=None):
        if not self.training:
            return [dict.fromkeys(("boxes", "scores", "labels"), torch.zeros(0))] * len(images)
        self.calls.append((len(images), *(module.training for module in self.body)))
        sums = torch.stack([image.sum() for image in self.body(torch.stack(images))])
        boxes = torch.tensor([float(len(own["labels"])) for own in targets])
        return {"sum": self.scale * sums.mean(), "boxes": boxes.mean(), "drawn": torch.rand(1)}


def test_the_loss_of_an_image_is_that_of_evaluation():
    """BatchNorm at its initial statistics divides by sqrt(1 + eps), and dropout drops nothing."""
    network = Norms().train()
    found = split(data.SearchSplit, 3)
    state, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    with evaluating(network):
        losses = DETECTION.own_losses(network, found.images[:], found.labels)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        drawn = torch.rand(1)
    sums = found.images[:].sum((1, 2, 3)) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(losses, sums + 1 + drawn)
    assert network.calls == [(1, False, False)] * 3
    assert all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_the_loss_of_a_batch_is_that_of_training():
    network, found = Norms().train(), split(data.TrainSplit)
    loss = DETECTION.batch_loss(network, found.images[:], found.labels)
    loss.backward()
    assert network.calls == [(2, True, True)]
    assert network.body[0].num_batches_tracked == 1
    assert network.scale.grad is not None


def test_a_network_of_any_task_may_compute_its_own_loss(tmp_path):
    """It is called as the function says; here its loss is one number for each image."""
    (tmp_path / "own.py").write_text(
        "def training_loss(network, images, target):\n"
        "    return (network(images)[:, 0] - target).abs()\n"
    )
    task = load_task(TaskConfig(training_loss="own.py:training_loss"), tmp_path)
    assert (task.loss, task.distil) == (None, None)
    images, labels = torch.tensor([[[[1.0]]], [[[4.0]]]]), torch.tensor([0, 2])
    assert task.batch_loss(nn.Flatten(), images, labels).item() == pytest.approx(1.5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    nn.init.ones_(network[1].weight), nn.init.zeros_(network[1].bias)
    losses = task.own_losses(network, images, labels)
    torch.testing.assert_close(losses.detach(), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(2), "expected losses by name .* got a Tensor; give .* loss and predictions"),
        ({}, "expected losses by name"),
        ({"loss": torch.zeros(2)}, "expected losses by name"),
    ],
)
def test_networks_that_do_not_return_their_losses(returned, message):
    network, found = Norms().train(), split(data.TrainSplit)
    network.forward = lambda images, targets: returned
    with pytest.raises(InputError, match=message):
        DETECTION.batch_loss(network, found.images[:], found.labels)


def test_what_a_network_with_its_own_loss_cannot_do():
    found, output = split(data.TrainSplit), torch.zeros(2, 3)
    with pytest.raises(InputError, match="compute their own loss, and it cannot be had of their"):
        DETECTION.losses(output, found.labels)
    with pytest.raises(InputError, match=r"no outputs to compare .*; set it to 0: they learn"):
        DETECTION.divergence(output, output, 4.0)
    plain = nn.Conv2d(1, 1, 1)  # takes no targets, as most networks
    with pytest.raises(InputError, match=r"^\[task\] training_loss: TypeError: .*positional"):
        DETECTION.batch_loss(plain, found.images[:], found.labels)
    odd = replace(DETECTION, training_loss=lambda network, images, target: images)
    with pytest.raises(InputError, match=r"expected one number, or one per image, \(2,\), got"):
        odd.batch_loss(plain, found.images[:], found.labels)


# torchvision's


class Body(nn.Module):
    """Two sizes of feature maps, whose norms learn or are frozen."""

    out_channels = 8

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, 4, 1, bias=False), norm(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), norm(12), nn.ReLU())
        self.put = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(12, 8, 1)])

    def forward(self, images):
        first = self.first(images)
        return {"0": self.put[0](first), "1": self.put[1](self.second(first))}


def retinanet(norm=nn.BatchNorm2d):
    torch.manual_seed(0)
    return RetinaNet(
        Body(norm),
        num_classes=3,
        min_size=32,
        max_size=32,
        image_mean=[0.5],
        image_std=[0.3],
        anchor_generator=AnchorGenerator(((8,), (16,)), ((1.0,),) * 2),
        topk_candidates=20,
    ).eval()


def halved(network):
    """Returns a copy of a detector with half of the channels of its body."""
    body = network.backbone
    groups = discover(body, (torch.rand(2, 1, 32, 32),), GroupRules(), 0).space.groups
    assert {group.name: group.size for group in groups} == {"first.0": 8, "second.0": 12}
    mask = Mask({group.name: np.arange(group.size) % 2 == 0 for group in groups})
    student = copy.deepcopy(network)
    student.backbone = compact(body, groups, mask)
    return student


def test_the_losses_of_torchvisions_detector():
    network, found = retinanet(), split(data.SearchSplit, 3)
    scores = image_scores(network, found, task=DETECTION, batch_size=2)
    assert not any(module.training for module in network.modules())
    network.training = network.backbone.training = True
    for image, own, loss in zip(found.images[:], found.labels.each, scores.losses, strict=True):
        with torch.no_grad():
            alone = network([image], [own])
        assert sum(alone.values()).item() == pytest.approx(loss, rel=1e-6)
    assert scores.score.metric == "mAP"


def test_a_detector_of_torchvisions_is_trained_and_its_cut_copy_too():
    network, train, search = retinanet(), split(data.TrainSplit), split(data.SearchSplit)
    before = copy.deepcopy(network.state_dict())
    (first,) = train_base(network, train, None, TrainConfig(epochs=1, lr=0.01), 0, task=DETECTION)
    fresh = retinanet().train()
    with torch.no_grad():
        alone = fresh(list(train.images[:]), list(train.labels.each))
    assert first.train_loss == pytest.approx(sum(alone.values()).item(), rel=1e-5)
    assert not torch.equal(network.head.classification_head.conv[0][0].weight, before[HEAD])
    student = halved(network)
    config = FinetuneConfig(epochs=2, lr=0.01, alpha=0.0, attention=1.0)
    done = distil(network, student, train, search, config, 0, task=DETECTION)
    assert any(layer.startswith("backbone.") for layer in done.attention_layers)
    assert done.best.search.loss < done.history[0].search.loss
    assert student.backbone.first[0].out_channels == 4


def test_frozen_norms_are_cut_and_stay_as_they_are():
    network, train = retinanet(FrozenBatchNorm2d), split(data.TrainSplit)
    norm = network.backbone.first[1]
    norm.running_mean.copy_(torch.arange(8.0))
    student = halved(network)
    config = FinetuneConfig(epochs=1, lr=0.01, alpha=0.0)
    distil(network, student, train, split(data.SearchSplit), config, 0, task=DETECTION)
    assert student.backbone.first[1].running_mean.tolist() == [0, 2, 4, 6]
    assert student.backbone.first[1].weight.tolist() == [1] * 4


def test_slices_of_a_network_learn_from_labels_alone():
    network, train = retinanet(), split(data.TrainSplit)
    found = discover(network.backbone, (torch.rand(2, 1, 32, 32),), GroupRules(), 0)
    groups = [
        replace(
            group,
            members=tuple(
                replace(member, tensor=f"backbone.{member.tensor}") for member in group.members
            ),
        )
        for group in found.space.groups
    ]
    palette = [Mask({g.name: np.arange(g.size) < g.size // 2 for g in groups})]
    config = ElasticConfig(epochs=1, lr=0.01, optimizer="sgd", alpha=0.0, plans=1)
    start = partial(compact, network, groups)
    elastic = train_elastic(
        network, groups, palette, train, config, 0, start=start, task=DETECTION
    )
    changed = elastic.backbone.first[0].weight != network.backbone.first[0].weight
    assert changed[:4].any()
    assert not changed[4:].any()


def test_a_detector_that_fits_its_data_and_one_that_does_not():
    parts = {
        "train": split(data.TrainSplit),
        "calibration": split(data.CalibrationSplit).take(slice(0, 0)),
        "search": split(data.SearchSplit).take(slice(0, 0)),
        "confirmation": split(data.ConfirmationSplit).take(slice(0, 0)),
    }
    network = retinanet()
    require_fit(network, data.SearchData(**parts), DETECTION)
    parts["train"] = split(data.TrainSplit, label={**BOX, "labels": np.array([7])})
    with pytest.raises(InputError, match=r"^\[data\] train: \[task\] training_loss: IndexError"):
        require_fit(network, data.SearchData(**parts), DETECTION)
