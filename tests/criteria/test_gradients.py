"""Scores from gradients and curvature, by hand and by what they stand for."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from evosearch.criteria import score_channels
from evosearch.criteria.gradients import gradients
from evosearch.criteria.hessian import hessian_diagonal
from evosearch.criteria.scored_network import ScoredNetwork
from tests.criteria.toys import Normed, linear_pair, scores, seen, summed
from tests.surgery.attention import OUT_OF_SIGHT
from tests.surgery.cases import CASES, discovered
from tests.surgery.networks import randomized

IMAGES = torch.tensor([[1.0], [2.0], [-1.0]])
BATCHES = [(IMAGES[:2], torch.zeros(2)), (IMAGES[2:], torch.zeros(1))]


def pair() -> ScoredNetwork:
    """The output is `3 relu(x) - relu(-2 x)`: gates have the gradients (3, 6, 0), (0, 0, -2)."""
    model = linear_pair([[1.0], [-2.0]], [[3.0, -1.0]])
    return seen(model, torch.ones(1), losses=summed)


BY_HAND = {
    "taylor": [(9 + 36) / 3, 4 / 3],
    "group_fisher": [(9 + 36) / 3, 4 / 3],  # one output element for each channel
    "group_fisher_macs": [(9 + 36) / 3 / 2, 4 / 3 / 2],  # one MAC before it, one behind
    "snip": [9 / 3, 2 / 3],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_gates_by_hand(name: str) -> None:
    np.testing.assert_allclose(scores(name, pair(), BATCHES)["0"], BY_HAND[name])


def test_drive_by_hand() -> None:
    """Filters w = (1, -2) have mean gradients g = (3 (1 + 2) / 3, -1 (-1) / 3) = (3, 1/3)."""
    w, g = np.array([1, 2]), np.array([3, 1 / 3])
    expected = w / w.mean() + w * g / (w * g).mean() + g / g.mean()
    np.testing.assert_allclose(scores("drive", pair(), BATCHES)["0"], expected, rtol=1e-6)


def test_hap_by_hand() -> None:
    """The loss is `(w_j c_j x_j)^2` summed: its Hessian in w is diagonal, `2 (c_j x_j)^2`."""
    model = linear_pair([[2.0, 0.0], [0.0, -3.0]], [[1.0, 0.0], [0.0, 4.0]])
    model[1] = nn.Identity()
    network = seen(model, torch.ones(2), losses=lambda output, _: output.square().sum(1))
    images = torch.tensor([[0.0, 3.0], [2.0, 0.0]])
    x = images.square().mean(0)
    np.testing.assert_allclose(
        scores("hap", network, [(images, torch.zeros(2))])["0"],
        # Mean square of a filter, times half its trace, whose inputs are never on together.
        [4 / 2 * float(x.sum()), 9 / 2 * 16 * float(x.sum())],
        rtol=1e-5,
    )


def test_without_curvature_hap_is_zero() -> None:
    model = linear_pair([[2.0], [1.0]], [[1.0, 4.0]])
    assert scores("hap", seen(model, torch.ones(1), losses=summed), BATCHES)["0"].tolist() == [
        0,
        0,
    ]


def test_the_hessian_diagonal_is_that_of_autograd() -> None:
    torch.manual_seed(0)
    model = randomized(Normed(3)).double()
    network = seen(model, torch.randn(2, 4, 4, dtype=torch.float64))
    batches = [(torch.randn(6, 2, 4, 4, dtype=torch.float64), torch.arange(6) % 3)]
    found = hessian_diagonal(network, batches, np.random.default_rng(0), probes=3000)
    weight = model.first.weight.detach().clone()

    def loss(own: Tensor) -> Tensor:
        output = torch.func.functional_call(model, {"first.weight": own}, (batches[0][0],))
        return network.losses(output, batches[0][1]).mean()

    exact = torch.autograd.functional.hessian(loss, weight)
    size = weight.numel()
    diagonal = exact.reshape(size, size).diagonal()
    close = (found["first.weight"].flatten() - diagonal).norm()
    assert close < 0.1 * diagonal.norm()


def test_coupled_gradients_are_summed_before_they_are_squared() -> None:
    """Two readers whose gradients cancel: no Fisher information, yet each alone has some."""

    class Cancel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
            self.back = nn.Linear(1, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.into(x)
            return self.out(x) + self.back(x)

    model = Cancel()
    with torch.no_grad():
        for module, value in ((model.into, 1.0), (model.out, 2.0), (model.back, -2.0)):
            module.weight.fill_(value)
    network = seen(model, torch.ones(1), losses=summed)
    batches = [(torch.ones(1, 1), torch.zeros(1))]
    assert scores("group_fisher", network, batches)["into"] == [0]
    assert scores("snip", network, batches)["into"] == [0]
    assert scores("taylor", network, batches)["into"] == [4]


def test_a_gate_is_scale_and_shift_of_the_batchnorm() -> None:
    """conv-BN-ReLU-conv: `dL/dm = gamma dL/dgamma + beta dL/dbeta`."""
    torch.manual_seed(0)
    model = randomized(Normed()).double()
    images, labels = torch.randn(8, 2, 5, 5, dtype=torch.float64), torch.arange(8) % 3
    network = seen(model, images[0])
    found = gradients(network, [(images, labels)]).gates["first"].sum((0, 1))
    network.losses(model.eval()(images), labels).sum().backward()
    norm = model.norm
    expected = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("name", [name for name in CASES if name not in OUT_OF_SIGHT])
def test_gates_are_the_gradients_of_what_reads(name: str) -> None:
    """A layer is linear in its weight: `sum over images dL/dm_j = sum W[:, j] dL/dW[:, j]`."""
    found = discovered(name)
    network = ScoredNetwork(
        model=found.model,
        groups=found.discovery.space.groups,
        layers=found.discovery.layers,
        losses=lambda output, _: sum(
            leaf.flatten(1).square().mean(1) for leaf in tree_leaves(output)
        ),
    )
    images = CASES[name].example(4)[0]
    if not isinstance(images, Tensor) or len(CASES[name].shapes) > 1:
        pytest.skip("takes more than one batch of images")
    gates = gradients(network, [(images, torch.zeros(4))]).gates
    weights = {
        place.weight: found.model.get_parameter(place.weight)
        for places in network.readers.values()
        for place in places
    }
    losses = network.losses(found.model(images), torch.zeros(4))
    slopes = dict(
        zip(weights, torch.autograd.grad(losses.sum(), list(weights.values())), strict=True)
    )
    for group, places in network.readers.items():
        expected = sum(
            place.rows(weights[place.weight].detach() * slopes[place.weight]).sum(1)
            for place in places
        )
        actual = gates[group].sum((0, 1)).float()
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_one_backward_pass_serves_all() -> None:
    torch.manual_seed(0)
    calls = []
    network = seen(randomized(Normed()), torch.randn(2, 5, 5))
    counted = ScoredNetwork(
        model=network.model,
        groups=network.groups,
        layers=network.layers,
        losses=lambda output, labels: calls.append(len(labels)) or network.losses(output, labels),
    )
    batches = [(torch.randn(4, 2, 5, 5), torch.arange(4) % 3) for _ in range(2)]
    names = ["taylor", "snip", "group_fisher", "group_fisher_macs", "drive"]
    score_channels(names, counted, batches, np.random.default_rng(0))
    assert calls == [4, 4]
