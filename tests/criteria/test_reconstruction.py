"""Criteria that rebuild what readers put out: by hand, and against the slow way."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.criteria.reconstruction import Lasso, TwoStep, ranked
from evosearch.refit.compensation import RIDGE
from evosearch.refit.gram import collect_statistics
from tests.criteria.toys import linear_pair, scores, seen


def test_ranked_keeps_order_and_error() -> None:
    found = ranked([2, 0, 1], [0.5, 1.5, 0.7])
    assert np.argsort(found).tolist() == [2, 0, 1]
    np.testing.assert_allclose(found, [1.5, 1.5, 0.5], rtol=1e-5)


def test_two_step_removes_what_adds_least() -> None:
    """Channel 2 costs .5; then 0 costs 1; then 1 takes back .8, for it did the opposite of 0."""
    gram = np.array([[1, -0.9, 0], [-0.9, 1, 0], [0, 0, 0.5]])
    found = TwoStep().score_gram(gram)
    np.testing.assert_allclose(found, [1.5, 1.5, 0.5], rtol=1e-5)
    assert np.argsort(found).tolist() == [2, 0, 1]


def test_lasso_of_independent_channels_by_hand() -> None:
    """`b_i = max(0, 1 - lambda / G_ii)`: channel i takes part from lambda = G_ii on."""
    energies = np.array([1.0, 0.01, 0.1, 0.0])
    penalties = np.geomspace(1, 1e-4, 100)
    found = Lasso().score_gram(np.diag(energies))
    share = [(penalties < energy * (1 - 1e-9)).sum() for energy in energies]
    np.testing.assert_allclose(np.floor(found * 101), share, atol=1)
    assert np.argsort(-found).tolist() == [0, 2, 1, 3]
    assert Lasso().score_gram(np.zeros((2, 2))).tolist() == [0, 0]


def test_lasso_drops_one_of_two_that_do_the_same() -> None:
    """Of channels alike (but for a thousandth) one stands for both until late."""
    factor = np.array([[1.0, 0, 0], [0.999, 0, 0], [0, 0.5, 0]])
    found = Lasso().score_gram(factor @ factor.T)
    assert found[0] > found[2] > found[1]


def problem(flat: bool) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    first = nn.Conv2d(2, 5, 3, padding=1)
    if flat:
        model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3))
    else:
        model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(5, 3, 3), nn.Flatten())
    return model, torch.randn(40, 2, 4, 4)


def left(weight: Tensor, covariance: Tensor, inputs: Tensor) -> float:
    """Returns a reader's error when the kept inputs' weights are refitted, `L(S)`."""
    whole = float(((weight @ covariance) * weight).sum())
    cross = covariance[inputs] @ weight.T
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(inputs))
    inner = covariance[inputs][:, inputs] + ridge
    return whole - float((cross * torch.linalg.solve(inner, cross)).sum())


@pytest.mark.parametrize("flat", [False, True])
def test_cap_is_the_greedy_order_of_compensated_errors(flat: bool) -> None:
    model, images = problem(flat)
    network = seen(model, images[0])
    found = scores("cap", network, [(images, torch.zeros(40))])["0"]
    reader = network.readers["0"][0]
    consumers = collect_statistics(model, network.groups, network.layers, [images], seed=0)
    covariance = consumers[reader.layers[0].module].covariance
    weight = network.weight(reader).flatten(1)
    energy = float(((weight @ covariance) * weight).sum())
    inputs = torch.arange(weight.shape[1]).reshape(5, -1)
    kept: list[int] = []
    errors = np.empty(5)
    while len(kept) < 5:
        rest = [channel for channel in range(5) if channel not in kept]
        each = [left(weight, covariance, inputs[[*kept, channel]].flatten()) for channel in rest]
        taken = rest[int(np.argmin(each))]
        errors[taken] = left(weight, covariance, inputs[kept].flatten()) / energy
        kept.append(taken)
    assert np.argsort(-found).tolist() == kept
    # The ridge leaves an error even with all channels, from which the scores start to count.
    errors -= left(weight, covariance, inputs.flatten()) / energy
    np.testing.assert_allclose(found, errors, rtol=1e-3)


def test_cap_keeps_one_of_two_channels_that_are_alike() -> None:
    torch.manual_seed(0)
    model = linear_pair([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[3, 3, 1, 2]])
    images = torch.randn(100, 3)
    found = scores("cap", seen(model, images[0]), [(images, torch.zeros(100))])["0"]
    assert np.argsort(-found).tolist() == [0, 3, 2, 1]
