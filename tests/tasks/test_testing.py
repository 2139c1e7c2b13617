import json

import pytest
import torch
from torch import nn

from evosearch.data import sources
from evosearch.errors import EvaluationError, InputError
from evosearch.tasks import testing


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def opened(monkeypatch):
    """How often the split was really loaded."""
    calls = []
    load = testing.load_test_split

    def counting(*args):
        calls.append(args)
        return load(*args)

    monkeypatch.setattr(testing, "load_test_split", counting)
    return calls


def test_a_network_is_measured_once(tmp_path, digits_config, model, opened):
    report = testing.TestReport(tmp_path / "test.json", digits_config)
    first = report.measure("base", model)
    assert first.score.images == sources.DIGITS_TEST
    assert report.measure("base", model) == first
    assert len(opened) == report.opened == 1


def test_the_ledger_outlives_the_program(tmp_path, digits_config, model, opened):
    path = tmp_path / "test.json"
    first = testing.TestReport(path, digits_config).measure("base", model)
    report = testing.TestReport(path, digits_config)
    assert report.results == {"base": first}
    assert report.measure("base", model) == first
    report.measure("other", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert len(opened) == testing.TestReport(path, digits_config).opened == 2
    assert [p.name for p in tmp_path.iterdir()] == ["test.json"]


def test_other_weights_under_a_known_name_are_refused(tmp_path, digits_config, model, opened):
    report = testing.TestReport(tmp_path / "test.json", digits_config)
    report.measure("base", model)
    with torch.no_grad():
        model[1].bias[0] += 1e-6
    with pytest.raises(InputError, match="'base' was measured on test with other weights"):
        report.measure("base", model)
    assert len(opened) == report.opened == 1


def test_a_look_that_fails_is_counted(tmp_path, digits_config, model):
    path = tmp_path / "test.json"
    with torch.no_grad():
        model[1].bias[0] = float("nan")
    with pytest.raises(EvaluationError):
        testing.TestReport(path, digits_config).measure("base", model)
    report = testing.TestReport(path, digits_config)
    assert report.opened == 1
    assert report.results == {}


def test_nothing_is_written_before_the_first_measurement(tmp_path, digits_config):
    assert testing.TestReport(tmp_path / "test.json", digits_config).opened == 0
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_of_other_data_is_refused(tmp_path, digits_config, model):
    path = tmp_path / "test.json"
    testing.TestReport(path, digits_config).measure("base", model)
    with pytest.raises(InputError, match="other data"):
        testing.TestReport(path, digits_config.model_copy(update={"seed": 1}))


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"opened": 1})])
def test_a_file_that_is_no_ledger(tmp_path, digits_config, content):
    path = tmp_path / "test.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"test\.json: not a ledger") as caught:
        testing.TestReport(path, digits_config)
    assert "\n" not in str(caught.value)
