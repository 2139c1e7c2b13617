import json

import pytest
import torch
from PIL import Image
from torch import nn

from evosearch.data import sources
from evosearch.data.config import DataConfig
from evosearch.data.contents import listed_test_images
from evosearch.errors import EvaluationError, InputError
from evosearch.study.imagelist import list_digest
from evosearch.tasks import testing
from tests.data.helpers import write_folder


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
    assert testing.TestReport(path, digits_config).opened == 2
    assert len(opened) == 2  # once in each program
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


def test_the_ledger_of_other_test_images_is_refused(tmp_path):
    """The text of the section is the same; what it stands for is not."""
    root = write_folder(write_folder(tmp_path / "pets", "train", 6), "test", 2)
    data = DataConfig(name="imagefolder", root=str(root), calibration=2, search=2)
    path = tmp_path / "test.json"
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    testing.TestReport(path, data).measure("base", linear)
    Image.new("RGB", (8, 8)).save(root / "train/cat/0000.png")
    assert testing.TestReport(path, data).opened == 1
    Image.new("RGB", (8, 8)).save(root / "test/cat/0000.png")
    with pytest.raises(InputError, match="other data; the images of the test split differ"):
        testing.TestReport(path, data)


def test_a_source_is_opened_once_for_all_networks(tmp_path, opened, monkeypatch):
    """A callable of the user's own may take minutes."""
    root = write_folder(write_folder(tmp_path / "pets", "train", 6), "test", 2)
    data = DataConfig(name="imagefolder", root=str(root), calibration=2, search=2)
    images = list_digest(listed_test_images(data, tmp_path))
    monkeypatch.setattr(testing, "listed_test_images", None)  # the digest is known
    report = testing.TestReport(tmp_path / "test.json", data, images=images)
    for name in "abc":
        report.measure(name, nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)))
    assert (len(opened), report.opened) == (1, 3)


def test_images_that_change_before_the_split_is_opened_are_refused(tmp_path):
    root = write_folder(write_folder(tmp_path / "pets", "train", 6), "test", 2)
    data = DataConfig(name="imagefolder", root=str(root), calibration=2, search=2)
    images = list_digest(listed_test_images(data, tmp_path))
    Image.new("RGB", (8, 8)).save(root / "test/cat/0000.png")
    report = testing.TestReport(tmp_path / "test.json", data, images=images)
    with pytest.raises(InputError, match="test split changed while this program ran"):
        report.measure("base", nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)))


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"opened": 1})])
def test_a_file_that_is_no_ledger(tmp_path, digits_config, content):
    path = tmp_path / "test.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"test\.json: not a ledger") as caught:
        testing.TestReport(path, digits_config)
    assert "\n" not in str(caught.value)
