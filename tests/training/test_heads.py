"""Networks whose auxiliary heads run in training only, as GoogLeNet's."""

import copy
from collections import namedtuple

import pytest
import torch
from torch import nn

from evosearch.data import splits as data
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.heads import holders_of_heads
from tests.data.helpers import split_of

Outputs = namedtuple("Outputs", ["logits", "aux"])


class WithHead(nn.Module):
    """As GoogLeNet: in training a second classifier on a hidden layer, and a named tuple."""

    def __init__(self, inner=6):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, inner, 3, padding=1), nn.BatchNorm2d(inner))
        self.drop = nn.Dropout(0.1)
        self.aux = nn.Sequential(nn.Flatten(), nn.Linear(6 * 64, 10))
        self.linear = nn.Linear(inner, 10)

    def forward(self, images):
        hidden = self.body(images).relu()
        logits = self.linear(self.drop(hidden.mean((2, 3))))
        return Outputs(logits, self.aux(hidden)) if self.training else logits


class Wrapped(nn.Module):
    def __init__(self, inner=6):
        super().__init__()
        self.net = WithHead(inner)

    def forward(self, images):
        return self.net(images)


def test_a_base_network_with_heads_trains(few):
    torch.manual_seed(0)
    model = WithHead()
    before = copy.deepcopy(model.state_dict())
    history = train_base(model, *few, TrainConfig(epochs=3, batch_size=32), 0)
    assert history[-1].train_loss < history[0].train_loss
    assert torch.equal(model.aux[1].weight, before["aux.1.weight"])
    assert not torch.equal(model.linear.weight, before["linear.weight"])


@pytest.mark.parametrize(("kind", "holder"), [(WithHead, ""), (Wrapped, "net")])
def test_a_cut_network_is_distilled_without_its_heads(few, kind, holder):
    """Its head expects six channels where four are left, so running it would fail."""
    torch.manual_seed(0)
    teacher, student = kind(), kind(inner=4)
    with pytest.raises(RuntimeError):
        student.train()(few[0].images[:2])
    assert holders_of_heads(teacher, few[0], CLASSIFICATION) == (holder,)
    modes = []
    student.get_submodule(f"{holder}.drop".strip(".")).register_forward_hook(
        lambda module, *_: modes.append(module.training)
    )
    config = FinetuneConfig(epochs=2, batch_size=32, attention=1.0)
    outcome = distil(teacher, student, *few, config, 0)
    assert outcome.history[-1].train_loss is not None
    assert modes.count(True) == 2 * 6  # dropout is on in every step
    assert not any(module.training for module in student.modules())


def test_networks_without_heads_have_no_holders(few):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10)).train()
    state = torch.get_rng_state()
    assert holders_of_heads(model, few[0], CLASSIFICATION) == ()
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(before, state)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvisions_networks_with_heads(name):
    import torchvision

    size = {"googlenet": 64, "inception_v3": 299}[name]
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(
        weights=None, num_classes=4, aux_logits=True, init_weights=False
    )
    train = split_of(data.TrainSplit, torch.randn(4, 3, size, size), [0, 1, 2, 3])
    assert holders_of_heads(model, train, CLASSIFICATION) == ("",)
    search = split_of(data.SearchSplit, torch.randn(2, 3, size, size), [0, 1])
    train_base(model, train, search, TrainConfig(epochs=1, batch_size=4, lr=0.01), 0)
    config = FinetuneConfig(epochs=1, batch_size=4, lr=0.01)
    outcome = distil(model, copy.deepcopy(model), train, search, config, 0)
    assert len(outcome.history) == 2


def test_a_head_that_takes_no_images_as_small_as_these_is_found():
    net = Wrapped()
    net.net.aux = nn.Sequential(nn.AvgPool2d(9), net.net.aux)
    images = torch.rand(2, 1, 8, 8)
    with pytest.raises(RuntimeError, match="too small"):
        net.train()(images)
    train = split_of(data.TrainSplit, images, [0, 1])
    assert holders_of_heads(net, train, CLASSIFICATION) == ("net",)


def test_a_network_that_fails_in_training_without_a_head_fails():
    class Failing(nn.Module):
        def forward(self, images):
            if self.training:
                raise RuntimeError("not in training")
            return images

    with pytest.raises(RuntimeError, match="not in training"):
        holders_of_heads(
            Failing(), split_of(data.TrainSplit, torch.rand(2, 1, 8, 8), [0, 1]), CLASSIFICATION
        )
