"""What is timed computes what the network computes."""

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.latency.runtimes import RUNTIMES
from evosearch.models.zoo import digits_resnet
from tests.surgery.networks import randomized


def in_runtime(name: str, network: nn.Module, images: torch.Tensor) -> np.ndarray:
    found = RUNTIMES[name].prepare(network, images, 1)()
    return np.asarray(found[0] if isinstance(found, list) else found)


@pytest.mark.parametrize(
    "name",
    ["eager", "exported", "onnxruntime", pytest.param("compile", marks=pytest.mark.slow)],
)
def test_a_runtime_computes_what_the_network_does(name: str) -> None:
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    network = randomized(digits_resnet(width=4))
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = network(images).numpy()
    found = in_runtime(name, network, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_int8_computes_it_but_for_the_steps_of_int8() -> None:
    pytest.importorskip("onnxruntime")
    network = randomized(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)))
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        expected = network(images).numpy()
    difference = np.abs(in_runtime("onnxruntime-int8", network, images) - expected).max()
    assert 1e-3 < difference / np.abs(expected).max() < 0.05


def test_a_layer_that_int8_does_not_take_is_timed_in_float() -> None:
    pytest.importorskip("onnxruntime")
    network = randomized(nn.ConvTranspose2d(1, 2, 2))
    images = torch.randn(1, 1, 4, 4)
    with torch.no_grad():
        expected = network(images).numpy()
    found = in_runtime("onnxruntime-int8", network, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
