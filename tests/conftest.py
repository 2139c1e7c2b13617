import pytest
import torch

from evosearch.data import splits as data
from evosearch.data.config import DataConfig


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("EVOSEARCH_DATA", raising=False)
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def digits_config():
    return DataConfig(
        name="digits", mean=(0.305,), std=(0.376,), augment=("crop",), calibration=200, search=350
    )


@pytest.fixture(scope="session")
def digits(digits_config):
    return data.load_search_data(digits_config)


@pytest.fixture(scope="session")
def few(digits):
    """A small train and search split, for trainings of a fraction of a second."""
    return digits.train.take(torch.arange(192)), digits.search.take(torch.arange(96))
