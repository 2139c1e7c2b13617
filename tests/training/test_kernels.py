"""Kernels: what they begin as, what training does to them, and what folding leaves."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from evosearch.errors import InputError
from evosearch.surgery.tracing.export import trace
from evosearch.training.kernels import DECAY, Branches, Sparse, largest
from evosearch.training.optimizers import OPTIMIZERS
from evosearch.training.reparametrised import (
    KERNELS,
    fold,
    nonzero_macs,
    register,
    require_kernels,
)
from evosearch.training.wiring import Wired

KINDS = ["orepa", "2:4", "zeros"]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def network() -> nn.Module:
    """A first layer of 3 inputs, a full, a depthwise and a 1x1 convolution, two linear layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 8),
        nn.ReLU(),
        nn.Linear(8, 5),
    ).eval()


IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def wired(traced: Callable[[nn.Module], Wired]) -> Wired:
    return traced(network())


@pytest.fixture(scope="module")
def traced() -> Callable[[nn.Module], Wired]:
    found = trace(network(), (IMAGES,))
    return lambda model: Wired(model=model, groups=found.groups, layers=found.layers)


def parametrised(model: nn.Module) -> set[str]:
    return {n for n, module in model.named_modules() if parametrize.is_parametrized(module)}


def train(model: nn.Module, kind: str = "sgd", steps: int = 3) -> None:
    parts = OPTIMIZERS[kind](model, 0.05, 5e-4)
    model.train()
    for _ in range(steps):
        model.zero_grad()
        model(IMAGES).square().sum().backward()
        for part in parts:
            part.step()
    model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_folded_is_what_was_trained_in_plain_modules(kind: str, wired: Wired) -> None:
    model = wired.model
    names = set(model.state_dict())
    register(kind, wired, rng())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model)
    moved = {
        name
        for name, tensor in model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert any("parametrizations" in name for name in moved)
    expected = model(IMAGES)
    fold(model)
    assert torch.equal(model(IMAGES), expected)
    assert set(model.state_dict()) == names
    assert parametrised(model) == set()
    assert {type(module) for module in model.modules()} == {type(m) for m in network().modules()}
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_orepa_begins_as_the_network_that_it_is_made_of(wired: Wired) -> None:
    expected = network()(IMAGES)
    undecayed = register("orepa", wired, rng())
    assert torch.equal(wired.model(IMAGES), expected)
    assert parametrised(wired.model) == {"0", "3", "7"}  # not the depthwise one
    learned = {name for name, _ in wired.model.named_parameters()}
    assert undecayed == {f"{n}.parametrizations.weight.0.scales" for n in ("0", "3", "7")}
    assert undecayed <= learned


def test_branches_by_hand() -> None:
    """One output, two inputs, 3x3: each branch with its factor, added up."""
    weight = torch.zeros(1, 2, 3, 3)
    branches = Branches(weight, rng())
    with torch.no_grad():
        branches.inner.copy_(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
        branches.full.zero_()
        branches.full[0, 0, 0, 0], branches.full[0, 1, 2, 2] = 1, 10
        branches.spread.copy_(torch.tensor([9.0, 18.0]).reshape(1, 2, 1, 1))
        branches.centre.copy_(torch.tensor([100.0, 200.0]).reshape(1, 2, 1, 1))
        branches.scales.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1, 1, 1))
    expected = torch.zeros(2, 3, 3)
    # (I + A) before the full kernel: input 0 passes, input 1 goes twice into 0, and passes.
    expected[0, 0, 0] += 2 * 1
    expected[1, 0, 0] += 2 * 1 * 2
    expected[1, 2, 2] += 2 * 10
    expected += 3 * torch.tensor([1.0, 2.0])[:, None, None]
    expected[:, 1, 1] += 4 * torch.tensor([100.0, 200.0])
    torch.testing.assert_close(branches(weight)[0], expected)


def test_branches_are_the_convolutions_that_they_replace() -> None:
    """The oracle: the paper's branches run one after the other, and added up behind."""
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 4, 3, padding=1, bias=False).double()
    branches = Branches(conv.weight, rng())
    nn.init.normal_(branches.inner)
    nn.init.normal_(branches.scales)
    images = torch.randn(2, 5, 7, 7, dtype=torch.float64)
    run = nn.functional.conv2d
    mixed = images + run(images, branches.inner[:, :, None, None])
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    pooled = nn.functional.avg_pool2d(padded, 3, stride=1)
    parts = [
        run(images, conv.weight, padding=1),
        run(mixed, branches.full, padding=1),
        run(pooled, branches.spread),
        run(images, branches.centre),
    ]
    expected = sum(
        v.reshape(4, 1, 1) * part for v, part in zip(branches.scales, parts, strict=True)
    )
    torch.testing.assert_close(run(images, branches(conv.weight), padding=1), expected)


def test_every_branch_learns_in_time(wired: Wired) -> None:
    register("orepa", wired, rng())
    before = {name: p.detach().clone() for name, p in wired.model.named_parameters()}
    train(wired.model)
    stayed = [n for n, p in wired.model.named_parameters() if torch.equal(p, before[n])]
    assert stayed == []


def test_two_of_four_by_hand() -> None:
    weight = torch.tensor([[1.0, -3.0, 2.0, 0.5]], requires_grad=True)
    found = Sparse(2, 4, 1)(weight)
    assert found.tolist() == [[0, -3, 2, 0]]
    found.backward(torch.zeros(1, 4))
    torch.testing.assert_close(weight.grad, torch.tensor([[2e-4, 0, 0, 1e-4]]))
    weight.grad = None
    Sparse(2, 4, 1)(weight).backward(torch.ones(1, 4))
    torch.testing.assert_close(weight.grad, 1 + torch.tensor([[DECAY, 0, 0, DECAY / 2]]))


def test_blocks_run_along_inputs_at_each_position() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 8, 2, 2)
    kept = largest(weight, 1, 4, 1)
    for out in range(3):
        for block in (slice(0, 4), slice(4, 8)):
            for y in range(2):
                for x in range(2):
                    own = weight[out, block, y, x].abs()
                    expected = torch.arange(4) == own.argmax()
                    assert torch.equal(kept[out, block, y, x].bool(), expected)


def test_of_equal_weights_the_first_stay() -> None:
    assert largest(torch.ones(1, 4), 2, 4, 1).tolist() == [[1, 1, 0, 0]]


def test_sparse_weights_stay_sparse_and_the_ends_dense(wired: Wired) -> None:
    register("2:4", wired, rng())
    # Not the first layer, the depthwise one and the last linear one.
    assert parametrised(wired.model) == {"3", "7", "10"}
    train(wired.model)
    fold(wired.model)
    for name, blocks in (("3", 8 * 2 * 9), ("7", 4 * 2), ("10", 8)):
        weight = wired.model.get_submodule(name).weight
        nonzero = (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
        assert nonzero.tolist() == [2] * blocks


def test_a_dropped_weight_comes_back_when_it_has_grown() -> None:
    linear = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -3.0, 2.0, 0.5]]))
    parametrize.register_parametrization(linear, "weight", Sparse(2, 4, 1))
    optimizer = torch.optim.SGD(linear.parameters(), lr=1.0)
    for _ in range(4):  # the first input asks for more, though it is not heard
        optimizer.zero_grad()
        linear(torch.tensor([1.0, 0, 0, 0])).neg().backward()
        optimizer.step()
    assert linear.weight[0, 0] > 4
    assert linear.weight[0, 2] == 0


def test_held_zeros_hold_below_the_median(wired: Wired) -> None:
    writing = ["0", "3", "5", "7", "10"]
    weights = [wired.model.get_submodule(n).weight.detach().numpy().flatten() for n in writing]
    tau = np.median(np.abs(np.concatenate(weights)))
    register("zeros", wired, rng())
    assert parametrised(wired.model) == set(writing)
    train(wired.model)
    fold(wired.model)
    for name, before in zip(writing, weights, strict=True):
        now = wired.model.get_submodule(name).weight.detach().numpy().ravel()
        assert ((now == 0) == (np.abs(before) < tau)).all()
        assert (now != before).any()


def test_nonzero_macs(wired: Wired) -> None:
    counter = FlopCounterMode(display=False)
    with counter:
        wired.model(IMAGES[:1])
    macs = counter.get_total_flops() // 2
    assert nonzero_macs(wired.model, wired.layers, macs) == macs
    with torch.no_grad():
        wired.model[3].weight[:, :4] = 0
    saved = 8 * 4 * 9 * 36
    assert nonzero_macs(wired.model, wired.layers, macs) == macs - saved


@pytest.mark.parametrize("kind", KINDS)
def test_muon_moves_the_parameter_behind_a_kernel(kind: str, wired: Wired) -> None:
    register(kind, wired, rng())
    before = wired.model[3].parametrizations.weight.original.detach().clone()
    train(wired.model, "muon", steps=1)
    assert not torch.equal(wired.model[3].parametrizations.weight.original, before)


def test_shared_weights_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    found = trace(model, (torch.randn(2, 4),))
    register("2:4", Wired(model=model, groups=found.groups, layers=found.layers), rng())
    assert parametrised(model) == set()
    assert model[2].weight is model[0].weight


def test_parametrisations_of_the_users_own_are_not_folded() -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    model = nn.Sequential(nn.Linear(2, 2))
    parametrize.register_parametrization(model[0], "weight", Twice())
    fold(model)
    assert parametrised(model) == {"0"}


def test_channels_that_m_does_not_divide_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    found = trace(model, (torch.randn(2, 1, 1, 1),))
    wired = Wired(model=model, groups=found.groups, layers=found.layers)
    with pytest.raises(InputError, match=r'"2:4": 1 reads 6 channels, no multiple of 4; set mult'):
        register("2:4", wired, rng())
    assert parametrised(model) == set()


@pytest.mark.parametrize("name", ["orpea", "4:4", "0:4", "2:", "", "4:2"])
def test_unknown_kernels_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown kernels .*; or N:M with 1 <= N < M"):
        require_kernels(name, "[finetune] kernels")
    for known in (*KERNELS, "2:4", "1:16"):
        require_kernels(known, "[finetune] kernels")
