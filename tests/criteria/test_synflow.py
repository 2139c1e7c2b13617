"""Synaptic flow: by hand, and that what flows in flows out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.criteria.synflow import absolute, flow
from evosearch.errors import InputError
from tests.criteria.toys import linear_pair, scores, seen
from tests.surgery.cases import CASES, discovered


def test_flow_by_hand() -> None:
    """Channel j carries `sum_i |W_ji| sum_k |W_kj|` for an image of ones."""
    network = seen(
        linear_pair([[1.0, -2.0], [0.5, 0.0], [1.0, 1.0]], [[3.0, -1.0, 0.0], [1.0, 1.0, 0.5]]),
        torch.ones(2),
    )
    linear = replace(network, model=absolute(network.model))
    expected = [3 * 4, 0.5 * 2, 2 * 0.5]
    for places in (linear.writers, linear.readers):
        found = flow(linear, torch.ones(1, 2, dtype=torch.float64), places)
        np.testing.assert_allclose(found["0"], expected)
    ranks = scores("synflow", network, [(torch.zeros(2, 2), torch.zeros(2))])["0"]
    assert ranks[0] > max(ranks[1:])


@pytest.mark.parametrize("name", ["plain", "residual", "concat", "flatten", "unknown_operator"])
def test_what_flows_into_a_channel_flows_out(name: str) -> None:
    """The authors' code keeps BatchNorm's shifts, and loses this."""
    found = discovered(name)
    network = ScoredNetwork(
        model=absolute(found.model),
        groups=found.discovery.space.groups,
        layers=found.discovery.layers,
    )
    image = torch.ones(1, *CASES[name].shapes[0], dtype=torch.float64)
    incoming, outgoing = (flow(network, image, p) for p in (network.writers, network.readers))
    for group in network.groups:
        assert (incoming[group.name] > 0).all()
        np.testing.assert_allclose(incoming[group.name], outgoing[group.name], rtol=1e-5)


def test_all_that_reads_gone_channels_is_scored_anew() -> None:
    """Channels of the second group that live off a gone channel of the first go next."""
    torch.manual_seed(0)
    weak, strong = 1e-3, 1.0
    model = torch.nn.Sequential(
        *linear_pair([[weak], [strong]], [[50.0, 0.0], [0.0, 1.0]])[:3],
        torch.nn.ReLU(),
        torch.nn.Linear(2, 1),
    )
    with torch.no_grad():
        model[4].weight.fill_(1)
    found = scores("synflow", seen(model, torch.ones(1)), [(torch.zeros(1, 1), torch.zeros(1))])
    assert found["0"][0] < found["0"][1]
    assert found["2"][0] < found["2"][1]


def test_says_what_it_cannot_score() -> None:
    network = seen(linear_pair([[1.0], [1.0]], [[1.0, 1.0]]), torch.ones(1))
    with pytest.raises(InputError, match="expected a batch"):
        scores("synflow", network, ())
    with torch.no_grad():
        network.model[0].weight.fill_(torch.inf)
    with pytest.raises(InputError, match="group '0' is not finite"):
        scores("synflow", network, [(torch.zeros(1, 1), torch.zeros(1))])
