"""The same evaluator on a GPU."""

import copy

import pytest
import torch
from torch import nn

from evosearch.engine.evaluator import EvaluatorConfig, MaskEvaluator
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


def losses(model, discovery, digits, device, **config) -> list[float]:
    evaluator = MaskEvaluator(
        model=copy.deepcopy(model).to(device),
        discovery=discovery,
        calibration=digits.calibration,
        search=digits.search,
        config=EvaluatorConfig(**config),
        seed=0,
    )
    return [evaluator.evaluate(mask).score.loss for mask in random_masks(discovery.space, 5)]


@pytest.mark.parametrize("build", ["compensated", "recalibrated"])
def test_a_gpu_scores_as_the_cpu_does(model, discovery, digits, build) -> None:
    exact = {"precision": "float32", "build": build}
    on_cpu = losses(model, discovery, digits, "cpu", **exact)
    assert losses(model, discovery, digits, "cuda", **exact) == pytest.approx(on_cpu, rel=1e-2)
    coarse = losses(model, discovery, digits, "cuda", build=build)
    assert coarse == pytest.approx(on_cpu, rel=0.1)


def test_a_network_is_distilled_on_a_gpu(model, digits, few) -> None:
    train, search = few
    teacher = copy.deepcopy(model).to("cuda")
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.linear.weight.mul_(0.5)
    done = distil(teacher, student, train, search, FinetuneConfig(epochs=2), 0)
    assert done.history[-1].search.loss < done.history[0].search.loss
