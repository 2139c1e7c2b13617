"""The same evaluator on a GPU."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from evosearch import memory
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.machine import resolve_device
from evosearch.models.zoo import digits_resnet
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from tests.surgery.cases import random_masks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.fixture(scope="module")
def model(digits) -> nn.Module:
    torch.manual_seed(0)
    network = digits_resnet(width=8)
    train_base(network, digits.train, None, TrainConfig(epochs=4), seed=0)
    return network


@pytest.fixture(scope="module")
def discovery(model) -> Discovery:
    return discover(model, (torch.randn(2, 1, 8, 8),), GroupRules(), seed=0)


def evaluator_on(model, discovery, digits, device, **config) -> MaskEvaluator:
    return MaskEvaluator(
        model=copy.deepcopy(model).to(device),
        discovery=discovery,
        calibration=digits.calibration,
        search=digits.search,
        config=EvaluatorConfig(**config),
        seed=0,
    )


def losses(model, discovery, digits, device, **config) -> list[float]:
    evaluator = evaluator_on(model, discovery, digits, device, **config)
    return [evaluator.evaluate(mask).score.loss for mask in random_masks(discovery.space, 5)]


@pytest.mark.parametrize("build", ["compensated", "recalibrated"])
def test_a_gpu_scores_as_the_cpu_does(model, discovery, digits, build) -> None:
    exact = {"precision": "float32", "build": build}
    on_cpu = losses(model, discovery, digits, "cpu", **exact)
    assert losses(model, discovery, digits, "cuda", **exact) == pytest.approx(on_cpu, rel=1e-2)
    coarse = losses(model, discovery, digits, "cuda", build=build)
    assert coarse == pytest.approx(on_cpu, rel=0.1)


def test_masks_that_a_cpu_search_found_lose_as_much_on_a_gpu(model, discovery, digits) -> None:
    """The same masks, every image: means within 1 %, and no image further off than a tenth."""
    masks = random_masks(discovery.space, 5)
    on_cpu, on_gpu = (
        evaluator_on(model, discovery, digits, device, precision="float32")
        for device in ("cpu", "cuda")
    )
    for mask in masks:
        cpu, gpu = (own.image_scores(mask, 0, own.images) for own in (on_cpu, on_gpu))
        assert gpu.loss == pytest.approx(cpu.loss, rel=1e-2)
        np.testing.assert_allclose(gpu.losses, cpu.losses, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("build", ["compensated", "recalibrated"])
def test_a_gpu_repeats_its_scores_bit_for_bit(model, discovery, digits, build) -> None:
    """What makes a resumed run equal to one that was not stopped."""
    resolve_device("cuda")
    first, second = (losses(model, discovery, digits, "cuda", build=build) for _ in range(2))
    assert first == second


def test_a_gpu_repeats_its_training_bit_for_bit(model, digits, few) -> None:
    resolve_device("cuda")
    train, search = few
    weights = []
    for _ in range(2):
        student = copy.deepcopy(model).to("cuda")
        distil(copy.deepcopy(student), student, train, search, FinetuneConfig(epochs=1), 0)
        weights.append(student.state_dict())
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())


def test_split_and_statistics_are_on_the_gpu(model, discovery, digits) -> None:
    own = evaluator_on(model, discovery, digits, "cuda")
    own.evaluate(random_masks(discovery.space, 1)[0])
    assert own._search._keeps == "normalised"
    assert {images.device.type for images in own._search._kept.values()} == {"cuda"}


def test_a_batch_that_fills_a_gpu_is_halved(model, discovery, digits, monkeypatch) -> None:
    """A convolution takes a hundredth of the free memory for each image of its batch."""
    monkeypatch.setattr(memory, "_fitting", {})
    own = evaluator_on(model, discovery, digits, "cuda", build="recalibrated")
    mask = random_masks(discovery.space, 1)[0]
    expected = own.image_scores(mask, 0, own.images)
    real = nn.Conv2d.forward

    def greedy(self, images):
        free = torch.cuda.mem_get_info()[0]
        torch.empty(free * len(images) // 100, dtype=torch.uint8, device="cuda")
        return real(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", greedy)
    found = own.image_scores(mask, 0, own.images)
    assert memory._fitting
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-2, atol=1e-3)


def test_a_network_is_distilled_on_a_gpu(model, digits, few) -> None:
    train, search = few
    teacher = copy.deepcopy(model).to("cuda")
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.linear.weight.mul_(0.5)
    done = distil(teacher, student, train, search, FinetuneConfig(epochs=2), 0)
    assert done.history[-1].search.loss < done.history[0].search.loss
