"""CIFAR-10 as an image folder, and networks trained elsewhere: slow, and only where they are."""

import zipfile
from pathlib import Path

import pytest
import torch

from evosearch.data import imagecache
from evosearch.data import splits as data
from evosearch.data.images import StoredPixels
from evosearch.models.build import build_model
from evosearch.run.spacefile import load_space_file
from evosearch.tasks.scoring import image_scores, score

SPACES = Path(__file__).parents[2] / "search_spaces"
SHARED = Path(__file__).parents[3] / "shared"
ARCHIVE = SHARED / "data" / "cifar10_jpeg.zip"
LIST = SHARED / "data" / "cifar10_jpeg_search_split.txt"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ARCHIVE.exists(), reason=f"needs {ARCHIVE}, which is no part of this"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("shared")
    zipfile.ZipFile(ARCHIVE).extractall(root / "cifar10")
    return root


@pytest.fixture
def file(folder, monkeypatch):
    monkeypatch.setenv("EVOSEARCH_DATA", str(folder))
    monkeypatch.setenv("EVOSEARCH_CACHE", str(folder / "cache"))
    file = load_space_file(SPACES / "cifar10_resnet20.toml")
    return file.model_copy(update={"data": file.data.model_copy(update={"search": str(LIST)})})


def test_the_listed_images_are_searched_on_and_no_others(file):
    loaded = data.load_search_data(file.data, SPACES)
    assert [len(p) for p in (loaded.train, loaded.calibration, loaded.search)] == [
        41_000, 4_000, 5_000,
    ]  # fmt: skip
    classes = sorted({line.split("/")[1] for line in LIST.read_text().split()})
    expected = [
        5000 * classes.index(line.split("/")[1]) + int(line.split("/")[2][:4])
        for line in LIST.read_text().split()
    ]
    assert loaded.search.indices.tolist() == sorted(expected)
    assert isinstance(loaded.train.images.pixels, StoredPixels)


def test_the_second_load_decodes_nothing(file, monkeypatch):
    data.load_search_data(file.data, SPACES)
    monkeypatch.setattr(imagecache, "_decoded", None)
    data.load_search_data(file.data, SPACES)


def test_resnet20_reaches_its_accuracy_on_all_test_images(file):
    weights = SHARED / "weights" / "cifar10_jpeg_resnet20.safetensors"
    model = build_model(file.model.model_copy(update={"weights": str(weights)}), SPACES)
    test = data.load_test_split(file.data, SPACES)
    assert len(test) == 10_000
    assert image_scores(model, test).score.accuracy == pytest.approx(0.878, abs=0.001)
    search = data.load_search_data(file.data, SPACES).search
    # The weights never saw these images: a little from the test accuracy, and not near 1.
    assert score(model, search.take(torch.arange(5000))).accuracy == pytest.approx(0.878, abs=0.01)
