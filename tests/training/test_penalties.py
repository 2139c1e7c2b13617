"""Penalties: hand values, gradients, and properties that an unfaithful form would break."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.errors import InputError
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.tracing.export import trace
from evosearch.training.penalties import (
    PENALTIES,
    Penalties,
    distance_from_orthogonal,
    require_penalties,
)
from evosearch.training.wiring import Wired
from tests.criteria.toys import Normed, Stream, linear_pair, set_weights


def wired(model: nn.Module, *shape: int) -> Wired:
    found = trace(model, (torch.randn(2, *shape),))
    return Wired(model=model, groups=found.groups, layers=found.layers)


def value(name: str, network: Wired) -> float:
    return PENALTIES[name](network)().item()


@pytest.fixture(scope="module")
def normed() -> Wired:
    torch.manual_seed(0)
    return wired(Normed(20), 2, 4, 4)


def scales(network: Wired, *values: float) -> Wired:
    with torch.no_grad():
        network.model.norm.weight.copy_(torch.tensor(values))
    return network


def test_group_lasso_by_hand() -> None:
    # One hidden channel: written by (3, 4), read as (0, 5).
    assert value("group_lasso", wired(linear_pair([[3.0, 4.0]], [[0.0], [5.0]]), 2)) == 10


def test_group_lasso_of_coupled_channels_by_hand() -> None:
    """Two writers and two readers of each channel: squares are summed before the root."""
    model = Stream()
    set_weights(
        model,
        {
            "a": [1.0, -2.0],
            "b": [[3.0, -1.0], [0.0, 0.5]],
            "c": [[1.0, 0.0], [2.0, 0.0], [2.0, 3.0]],
        },
    )
    incoming = (1 + 9 + 1) ** 0.5 + (4 + 0.25) ** 0.5
    outgoing = (9 + 1 + 4 + 4) ** 0.5 + (1 + 0.25 + 9) ** 0.5
    assert value("group_lasso", wired(model, 1, 3, 3)) == pytest.approx(incoming + outgoing)


def test_group_lasso_counts_the_scale_of_a_norm() -> None:
    """Filters shrunk while the scale grows leave the outputs, and must not be cheaper for it."""
    network = wired(Normed(3), 2, 4, 4)
    before = value("group_lasso", network)
    with torch.no_grad():
        network.model.first.weight.div_(1000)
        network.model.norm.weight.mul_(1000)
    assert value("group_lasso", network) > before


def test_orthogonality_by_hand() -> None:
    alike = torch.tensor([[3.0, 4.0], [6.0, 8.0]], dtype=torch.float64)
    apart = torch.tensor([[3.0, 4.0], [-8.0, 6.0]], dtype=torch.float64)
    assert float(distance_from_orthogonal(alike)) == pytest.approx(2 / 4)
    assert float(distance_from_orthogonal(apart)) == pytest.approx(0)


def test_more_filters_than_elements_have_a_floor() -> None:
    # Three directions in the plane at 120 degrees reach the least, n (n - rest) / rest over n^2.
    angles = [2 * math.pi * k / 3 for k in range(3)]
    fan = torch.tensor([[math.cos(a), math.sin(a)] for a in angles], dtype=torch.float64)
    assert float(distance_from_orthogonal(fan)) == pytest.approx(3 * 1 / 2 / 9)
    for _ in range(20):
        drawn = torch.randn(3, 2, dtype=torch.float64)
        assert float(distance_from_orthogonal(drawn)) >= 3 * 1 / 2 / 9 - 1e-12


def test_gradient_of_orthogonality() -> None:
    torch.manual_seed(0)
    kernel = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distance_from_orthogonal, [kernel])


def test_orthogonality_leaves_grouped_and_linear_layers_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1, groups=2), nn.Flatten())
    network = wired(model.append(nn.Linear(2, 3)), 1, 1, 1)
    set_weights(model, {"0": [1.0, 5.0]})
    assert value("orthogonality", network) == pytest.approx(2 / 4)


def test_lowest_l1_by_hand(normed: Wired) -> None:
    with torch.no_grad():
        normed.model.first.weight.fill_(1.0)
        normed.model.first.weight[3] = -0.5
        normed.model.first.weight[7] = 0.25
    # The lowest tenth of 20 channels are two, of 2 x 3 x 3 weights each.
    found = PENALTIES["lowest_l1"](normed)
    assert found().item() == pytest.approx(18 * (0.5 + 0.25))
    found().backward()
    touched = normed.model.first.weight.grad.flatten(1).abs().sum(1).nonzero().flatten()
    assert touched.tolist() == [3, 7]
    # They are settled when it is built, not when weights have moved on.
    with torch.no_grad():
        normed.model.first.weight[0] = 0
    assert found().item() == pytest.approx(18 * (0.5 + 0.25))


def test_bn_l1_and_polarization_by_hand() -> None:
    pair = wired(Normed(2), 2, 4, 4)
    assert value("bn_l1", scales(pair, -1.0, 0.5)) == 1.5
    # The split is rewarded: 1 - (0.5 + 0.5) against 1 - 0.
    assert value("polarization", scales(pair, 0.0, 1.0)) == 0
    assert value("polarization", scales(pair, 0.5, 0.5)) == 1


def test_the_mean_of_polarization_is_over_the_whole_network_and_learns() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    network = wired(model.append(nn.BatchNorm2d(1)).append(nn.Flatten()), 1, 1, 1)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.1, 0.2]))
        model[3].weight.fill_(0.9)
    mean = 1.2 / 3
    spread = (mean - 0.1) + (mean - 0.2) + (0.9 - mean)
    penalty = PENALTIES["polarization"](network)
    assert penalty().item() == pytest.approx(1.2 - spread)
    penalty().backward()
    # d spread / d gamma_j = sign_j - mean of signs, with signs (-1, -1, 1).
    expected = 1 - (np.array([-1, -1, 1]) + 1 / 3)
    found = torch.cat([model[1].weight.grad, model[3].weight.grad])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_polarization_clamps_scales_and_keeps_decay_from_them() -> None:
    network = scales(wired(Normed(3), 2, 4, 4), -0.5, 0.4, 1.5)
    bias = network.model.norm.bias.detach().clone()
    both = Penalties({"group_lasso": 1e-4, "polarization": 1e-4}, network)
    both.after_step()
    assert network.model.norm.weight.tolist() == pytest.approx([0, 0.4, 1])
    assert torch.equal(network.model.norm.bias, bias)
    assert both.undecayed == {"norm.weight"}
    assert Penalties({"group_lasso": 1e-4}, network).undecayed == frozenset()


def test_penalties_add_up_by_their_weights(normed: Wired) -> None:
    one, two = (value(name, normed) for name in ("group_lasso", "bn_l1"))
    both = Penalties({"group_lasso": 0.5, "bn_l1": 2.0}, normed)()
    assert both.item() == pytest.approx(0.5 * one + 2 * two, rel=1e-5)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_order_of_channels_does_not_count(name: str) -> None:
    torch.manual_seed(0)
    model = Normed(6)
    torch.nn.init.uniform_(model.norm.weight, 0.2, 1)
    network = wired(model, 2, 4, 4)
    before = value(name, network)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        model.first.weight.copy_(model.first.weight[order])
        model.norm.weight.copy_(model.norm.weight[order])
        model.norm.bias.copy_(model.norm.bias[order])
        model.last.weight.copy_(model.last.weight[:, order])
    assert value(name, network) == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_are_finite_at_zero_and_reach_something(name: str) -> None:
    torch.manual_seed(0)
    network = wired(Normed(4), 2, 4, 4)
    PENALTIES[name](network)().backward()
    reached = [p.grad for p in network.model.parameters() if p.grad is not None]
    assert any(bool(grad.any()) for grad in reached)
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.zero_()
    network.model.zero_grad()
    PENALTIES[name](network)().backward()
    for parameter in network.model.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("name", ["group_lasso", "bn_l1"])
def test_a_cut_network_pays_what_its_channels_paid(name: str) -> None:
    """Where channels do not share terms, the two halves pay together what the whole one paid."""
    torch.manual_seed(0)
    network = wired(Normed(6), 2, 4, 4)
    mask = np.array([True, False, True, True, False, False])
    halves = []
    for own in (mask, ~mask):
        cut = compact(network.model, network.groups, Mask({"first": own}))
        halves.append(value(name, wired(cut, 2, 4, 4)))
    assert sum(halves) == pytest.approx(value(name, network), rel=1e-5)


def test_what_a_network_lacks_is_named() -> None:
    network = wired(linear_pair([[3.0, 4.0]], [[0.0], [5.0]]), 2)
    for name, lacking in {
        "orthogonality": "no ungrouped convolution",
        "bn_l1": "no BatchNorm",
        "polarization": "no BatchNorm",
    }.items():
        with pytest.raises(InputError, match=f"penalty '{name}': the network has {lacking}"):
            PENALTIES[name](network)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"group_lass": 1.0}, "unknown penalty 'group_lass': did you mean 'group_lasso'"),
        ({"bn_l1": -1.0}, r"\[prune.penalties\] bn_l1 = -1: expected a weight of 0 or more"),
        ({"bn_l1": math.inf}, "expected a weight of 0 or more"),
        ({"bn_l1": math.nan}, "expected a weight of 0 or more"),
    ],
)
def test_bad_settings_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_penalties(weights, "[prune.penalties]")


def test_parametrised_weights_count_for_what_they_stand_for() -> None:
    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    network = wired(linear_pair([[3.0, 4.0]], [[0.0], [5.0]]), 2)
    nn.utils.parametrize.register_parametrization(network.model[0], "weight", Twice())
    fresh = Wired(model=network.model, groups=network.groups, layers=network.layers)
    assert value("group_lasso", fresh) == pytest.approx(2 * 5 + 5)
