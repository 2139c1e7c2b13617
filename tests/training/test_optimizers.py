"""What the fine-tuning's steps are made of."""

import pytest
import torch
from torch import nn

from evosearch.training import optimizers as module
from evosearch.training.optimizers import (
    MUON_SHARE,
    OPTIMIZERS,
    KernelMuon,
    resolve_optimizer,
    spare,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)
    )


def stepped(model: nn.Module, kind: str, steps: int = 3) -> dict[str, torch.Tensor]:
    parts = OPTIMIZERS[kind](model, 0.1, 0.01)
    torch.manual_seed(1)
    for _ in range(steps):
        model.zero_grad()
        model(torch.randn(4, 3, 6, 6)).square().sum().backward()
        for part in parts:
            part.step()
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def test_kernels_take_torchs_muon_and_the_rest_takes_sgd():
    """A kernel is the matrix `(outputs, inputs x positions)` of its convolution."""
    model = network()
    kernel = model[0].weight
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    expected = network()
    oracle = torch.optim.Muon([matrix], lr=0.1 * MUON_SHARE, weight_decay=0.01, momentum=0.9)
    sgd = torch.optim.SGD(
        [p for name, p in expected.named_parameters() if name != "0.weight"],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.01,
    )
    torch.manual_seed(1)
    for _ in range(3):
        images = torch.randn(4, 3, 6, 6)
        expected.zero_grad()
        expected(images).square().sum().backward()
        matrix.grad = expected[0].weight.grad.flatten(1)
        oracle.step()
        sgd.step()
        with torch.no_grad():
            expected[0].weight.copy_(matrix.view_as(kernel))
    found = stepped(model, "muon")
    for name, tensor in expected.named_parameters():
        assert torch.equal(found[name], tensor), name


def test_sgd_takes_every_parameter():
    (part,) = OPTIMIZERS["sgd"](network(), 0.1, 0.01)
    assert len(part.param_groups[0]["params"]) == 6


def test_what_takes_no_gradient_is_left_out():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    (part,) = OPTIMIZERS["muon"](model, 0.1, 0.01)
    assert isinstance(part, torch.optim.SGD)
    stepped(model, "muon")
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 2), nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(4, 8, 2)]
)
def test_what_is_no_plain_convolution_takes_sgd(layer):
    (part,) = OPTIMIZERS["muon"](layer, 0.1, 0.0)
    assert isinstance(part, torch.optim.SGD)


def test_auto_is_muon_where_bfloat16_is_fast(monkeypatch):
    for fast, expected in (("bfloat16", "muon"), ("float32", "sgd")):
        monkeypatch.setattr(module, "resolve_precision", lambda *_, fast=fast: fast)
        assert resolve_optimizer("auto", "cpu") == expected
        assert resolve_optimizer("sgd", "cpu") == "sgd"
        assert resolve_optimizer("muon", "cpu") == "muon"


def test_the_memory_layout_of_a_kernel_does_not_matter():
    plain = stepped(network(), "muon")
    other = stepped(network().to(memory_format=torch.channels_last), "muon")
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-3)
    assert not torch.equal(plain["0.weight"], network()[0].weight)


def test_a_step_changes_all_directions_alike():
    """A gradient's singular values lie 20 times apart, its update's near the learning rate."""
    kernel = nn.Parameter(torch.zeros(8, 4, 3, 3))
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(8, 36), full_matrices=False)
    kernel.grad = (left @ torch.diag(torch.linspace(1, 20, 8)) @ right).view(8, 4, 3, 3)
    KernelMuon([kernel], lr=0.1, weight_decay=0.0).step()
    values = torch.linalg.svdvals(kernel.detach().flatten(1)) / 0.1
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_a_kernel_without_a_gradient_stays():
    kernels = [nn.Parameter(torch.ones(2, 2, 1, 1)), nn.Parameter(torch.ones(2, 2, 1, 1))]
    kernels[0].grad = torch.eye(2).view(2, 2, 1, 1)
    KernelMuon(kernels, lr=0.1, weight_decay=0.0).step()
    assert not torch.equal(kernels[0], torch.ones(2, 2, 1, 1))
    assert torch.equal(kernels[1], torch.ones(2, 2, 1, 1))


def test_what_is_spared_does_not_decay():
    """Without gradients a step takes `lr * decay` of a weight, and nothing of a spared one."""
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([first, second], lr=0.5, weight_decay=0.1)
    spare(optimizer, [second])
    for parameter in (first, second):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert first.tolist() == pytest.approx([0.95] * 2)
    assert second.tolist() == [1.0] * 3
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]


def test_sparing_nothing_changes_nothing():
    (part,) = OPTIMIZERS["sgd"](network(), 0.1, 0.01)
    spare(part, [])
    assert len(part.param_groups) == 1
