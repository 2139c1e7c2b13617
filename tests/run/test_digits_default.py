"""The base network of the embedded default meets what the README says of it."""

import tomllib
from pathlib import Path

import pytest

from evosearch.data.config import DataConfig
from evosearch.data.splits import load_search_data
from evosearch.models.build import ModelConfig, build_model
from evosearch.tasks import testing
from evosearch.training.base_training import TrainConfig, train_base

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"


def accuracy_on_test(seed, folder):
    space = tomllib.loads(SPACE.read_text())
    data = DataConfig(**space["data"])
    model = build_model(ModelConfig(**space["model"]), SPACE.parent, seed=seed)
    train_base(model, load_search_data(data).train, None, TrainConfig(**space["train"]), seed)
    return testing.TestReport(folder / "test.json", data).measure(f"{seed}", model).score.accuracy


def test_the_base_network_reaches_its_accuracy(tmp_path):
    assert accuracy_on_test(0, tmp_path) >= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_the_base_network_reaches_its_accuracy_with_other_seeds(seed, tmp_path):
    assert accuracy_on_test(seed, tmp_path) >= 0.975
