"""Scores from activations, by hand."""

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.criteria import score_channels
from evosearch.criteria.activations import APoZ, ClassResponse, HRank, MeanActivation
from tests.criteria.toys import Stream, linear_pair, scores, seen, set_weights


def test_mean_activation_and_apoz_by_hand() -> None:
    """Channel 0 passes x, channel 1 its negative twice over; the ReLU leaves one of them."""
    network = seen(linear_pair([[1.0], [-2.0]], [[1.0, 1.0]]), torch.ones(1))
    images = torch.tensor([[3.0], [1.0], [-1.0], [0.0]])
    batches = [(images[:3], torch.zeros(3)), (images[3:], torch.zeros(1))]  # of uneven size
    np.testing.assert_allclose(scores("mean_activation", network, batches)["0"], [4 / 4, 2 / 4])
    np.testing.assert_allclose(scores("apoz", network, batches)["0"], [2 / 4, 1 / 4])


def test_readers_of_a_stream_are_averaged() -> None:
    model = Stream()
    set_weights(model, {"a": [1.0, -2.0], "b": [[0.0, 0.0], [0.0, 1.0]]})
    network = seen(model, torch.ones(1, 2, 2))
    batches = [(torch.ones(1, 1, 2, 2), torch.zeros(1))]
    # `b` reads (1, -2); `c` reads the sum (1, -4).
    np.testing.assert_allclose(scores("mean_activation", network, batches)["a"], [1, 3])


def test_hrank_is_the_mean_rank_of_the_maps() -> None:
    outer = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 5))
    maps = torch.stack([torch.zeros(4, 4), outer, outer + torch.eye(4), torch.eye(4)])
    assert HRank().measure(maps[None]).tolist() == [[0, 1, 4, 4]]
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([0.0, 1.0]))  # channel 1 is one everywhere
    images = torch.stack([torch.eye(4), torch.zeros(4, 4)])[:, None]
    found = scores("hrank", seen(model, images[0]), [(images, torch.zeros(2))])
    np.testing.assert_allclose(found["0"], [(4 + 0) / 2, (1 + 1) / 2])


def test_hrank_looks_at_the_first_images_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1))
    set_weights(model, {"0": [1.0, 1.0]})
    images = torch.cat([torch.eye(3).expand(64, 1, 3, 3), torch.zeros(20, 1, 3, 3)])
    batches = [(images[:50], torch.zeros(50)), (images[50:], torch.zeros(34))]
    assert scores("hrank", seen(model, images[0]), batches)["0"].tolist() == [3, 3]


def test_flattened_maps_are_squares_again() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(2 * 9, 2))
    set_weights(model, {"0": [1.0, 0.0]})
    batches = [(torch.eye(3).reshape(1, 1, 3, 3), torch.zeros(1))]
    assert scores("hrank", seen(model, batches[0][0][0]), batches)["0"].tolist() == [3, 0]


def test_class_response_by_hand() -> None:
    """Channel 0 answers to class 0 alone, channel 1 to all alike."""
    values = torch.tensor([[4.0, 1.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    found = ClassResponse().combine(values, torch.tensor([0, 1, 2]))
    np.testing.assert_allclose(found, [2 * 4 / 3, (2 - 1 - 1) / 3])


def test_one_forward_pass_serves_all() -> None:
    calls = []

    class Counting(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    model = Counting(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten())
    network = seen(model, torch.randn(1, 6, 6))
    batches = [(torch.randn(5, 1, 6, 6), torch.arange(5) % 2) for _ in range(2)]
    names = ["mean_activation", "apoz", "hrank", "class_response"]
    calls.clear()
    together = score_channels(names, network, batches, np.random.default_rng(0))
    assert calls == [5, 5]
    for name, kind in zip(names, [MeanActivation, APoZ, HRank, ClassResponse], strict=True):
        alone = kind()(network, batches, np.random.default_rng(5))
        np.testing.assert_array_equal(alone["0"], together[name]["0"])
