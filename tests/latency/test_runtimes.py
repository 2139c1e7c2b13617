"""What is timed computes what the network computes."""

import numpy as np
import pytest
import torch

from evosearch.latency.runtimes import RUNTIMES
from evosearch.models.zoo import digits_resnet
from tests.surgery.networks import randomized


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
    found = RUNTIMES[name].prepare(network, images, 1)()
    output = found[0] if isinstance(found, list) else found
    np.testing.assert_allclose(np.asarray(output), expected, rtol=1e-3, atol=1e-4)
