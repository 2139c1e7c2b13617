"""Criteria that learn gates: scores by hand, and what they learn where weights are held."""

import math

import numpy as np
import pytest
import torch

from evosearch.criteria import CRITERIA
from evosearch.criteria.learned import Consensus, OnLearnedGates, learned_gates
from evosearch.criteria.magnitude import L1
from evosearch.errors import InputError
from evosearch.surgery.gate_kinds import ConsensusGates, ExcitationGates
from evosearch.surgery.gating import gates_of
from tests.criteria.toys import Stream, linear_pair, scores, seen

BATCHES = [(torch.rand(4, 2) + 0.5, torch.zeros(4)) for _ in range(2)]


def test_gates_that_trained_with_the_network_are_read_and_stay() -> None:
    """Two writers of the channels, gates 1/2 and 3/4 on one and 1/4 and 1/2 on the other."""
    network = seen(Stream(), torch.ones(1, 2, 2))
    rng = torch.Generator().manual_seed(0)
    gates = ExcitationGates(network.model, network.groups, network.layers, rng)
    biases = [[0.0, math.log(3)], [-math.log(3), 0.0]]
    with torch.no_grad():
        for block, own in zip(gates.blocks.values(), biases, strict=True):
            block.get_parameter("up_bias").copy_(torch.tensor(own))
    (found,) = scores("mseb", network, [(torch.rand(3, 1, 2, 2), torch.arange(3))]).values()
    np.testing.assert_allclose(found, [(1 / 2 + 1 / 4) / 2, (3 / 4 + 1 / 2) / 2])
    assert gates_of(network.model) is gates


def test_consensus_counts_open_gates_and_then_their_margin() -> None:
    """Open on 1, 1, 2 and 0 of two images; of the first two the second is by far more open."""
    factors = torch.tensor([[0.6, 0.9, 0.51, 0.49], [0.1, 0.4, 0.51, 0.49]])
    expected = [0.5 + 0.35 / 2, 0.5 + 0.65 / 2, 1 + 0.51 / 2, 0.49 / 2]
    assert Consensus().combine(factors).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("images", [2, 5, 64])
def test_one_image_more_outweighs_every_margin(images: int) -> None:
    for count in range(images):
        most, least = torch.full((images,), 0.5), torch.zeros(images)
        most[:count], least[: count + 1] = 1.0, 0.501
        first, second = Consensus().combine(torch.stack([most, least], dim=1)).tolist()
        assert first < second


def test_channels_that_lower_the_loss_score_highest() -> None:
    """Of four equal channels the loss wants the first large, and the last small."""
    model = linear_pair([[1.0, 1.0]] * 4, [[-1.0, 0.0, 0.0, 1.0]])
    network = seen(model, torch.ones(2), losses=lambda output, _: output[:, 0])
    (found,) = scores("mseb", network, BATCHES).values()
    assert found[0] > found[1:3].max()
    assert found[3] < found[1:3].min()


def test_consensus_is_for_trainings_under_a_budget() -> None:
    network = seen(linear_pair([[1.0]], [[1.0]]), torch.ones(1))
    with pytest.raises(InputError, match="train with the network under a budget"):
        scores("consensus", network, BATCHES)
    assert gates_of(network.model) is None


def test_which_criteria_have_gates_in_training() -> None:
    kinds = {name: learned_gates(kind) for name, kind in CRITERIA.items()}
    assert {name: kind for name, kind in kinds.items() if kind is not None} == {
        "mseb": ExcitationGates,
        "consensus": ConsensusGates,
    }
    assert not issubclass(L1, OnLearnedGates)
