"""Every name that `[data]` knows, from small files made here."""

import pickle

import numpy as np
import pytest
import torch
from scipy.io import savemat

from evosearch.data import splits as data
from evosearch.data.config import DataConfig
from evosearch.data.images import StoredPixels
from evosearch.errors import InputError
from tests.data.helpers import write_folder

PROVIDER = """
import numpy as np
import torch

class Pictures(torch.utils.data.Dataset):
    def __init__(self, count, first=0, targets=True):
        self.count, self.first = count, first
        if targets:
            self.targets = [self.label(i) for i in range(count)]
    def label(self, i):
        return (i + self.first) % 3
    def __len__(self):
        return self.count
    def __getitem__(self, i):
        return torch.full((1, 4, 4), i + self.first, dtype=torch.uint8), self.label(i)

def datasets(targets=True):
    return Pictures(30, targets=targets), Pictures(6, 30, targets=targets)

def masks():
    pixels = np.zeros((20, 3, 4, 4), np.uint8)
    return (pixels, np.zeros((20, 4, 4), np.uint8)), (pixels[:4], np.zeros((4, 4, 4), np.uint8))

def values():
    pixels = np.arange(20 * 16, dtype=np.uint8).reshape(20, 1, 4, 4)
    return (pixels, np.linspace(0, 1, 20)), (pixels[:4], np.linspace(0, 1, 4))

def short():
    pixels = np.zeros((20, 3, 4, 4), np.uint8)
    return (pixels, np.zeros(19, int)), (pixels, np.zeros(20, int))

def three():
    return 1, 2, 3

def flat():
    return Flat(), Flat()

class Flat(Pictures):
    def __init__(self):
        super().__init__(20)
    def __getitem__(self, i):
        return torch.zeros(16), 0
"""


def config(name, **changes):
    return DataConfig(**({"name": name, "calibration": 4, "search": 6} | changes))


@pytest.fixture
def provider(tmp_path):
    (tmp_path / "own.py").write_text(PROVIDER)
    return tmp_path


def refused(wanted, folder, message):
    with pytest.raises(InputError, match=message) as caught:
        data.load_search_data(wanted, folder)
    assert "\n" not in str(caught.value)


# imagefolder


@pytest.mark.parametrize("test", ["test", "val"])
def test_an_image_folder(tmp_path, test, monkeypatch):
    write_folder(tmp_path / "elsewhere" / "pets", "train", 10)
    write_folder(tmp_path / "elsewhere" / "pets", test, 3)
    monkeypatch.setenv("EVOSEARCH_DATA", str(tmp_path / "elsewhere"))
    wanted = config("imagefolder", root="pets")
    loaded = data.load_search_data(wanted, tmp_path)
    assert [len(p) for p in (loaded.train, loaded.calibration, loaded.search)] == [10, 4, 6]
    assert torch.bincount(loaded.search.labels).tolist() == [3, 3]
    held_out = data.load_test_split(wanted, tmp_path)
    assert held_out.indices.tolist() == list(range(20, 26))
    assert held_out.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_image_folders_that_are_none(tmp_path):
    wanted = config("imagefolder", root="pets")
    refused(wanted, tmp_path, r"root = 'pets': nothing at .*pets/train; \$EVOSEARCH_DATA, .* not")
    (tmp_path / "pets" / "train").mkdir(parents=True)
    refused(wanted, tmp_path, "pets has train but neither test nor val; unpack the images")
    (tmp_path / "pets" / "val").mkdir()
    refused(wanted, tmp_path, "name = 'imagefolder': FileNotFoundError: Couldn't find any class")
    write_folder(tmp_path / "pets", "train", 10)
    write_folder(tmp_path / "pets", "val", 2, classes=("cat", "fox"))
    refused(wanted, tmp_path, "train and val differ in their classes: dog, fox")
    refused(config("imagefolder", kwargs={"a": 1}), tmp_path, "'imagefolder' takes no kwargs")


# The list of the search split


@pytest.fixture
def pets(tmp_path):
    write_folder(tmp_path / "pets", "train", 10)
    return write_folder(tmp_path / "pets", "test", 2).parent


LISTED = ["train/dog/0003.png", "train/cat/0001.png", "", "train/dog/0009.png"]


def test_the_listed_images_are_the_search_split(pets):
    (pets / "list.txt").write_text("\n".join(LISTED))
    loaded = data.load_search_data(config("imagefolder", root="pets", search="list.txt"), pets)
    assert loaded.search.indices.tolist() == [1, 13, 19]
    assert loaded.search.labels.tolist() == [0, 1, 1]
    assert len(loaded.calibration) == 4
    everything = [loaded.train, loaded.calibration, loaded.search]
    assert sorted(torch.cat([p.indices for p in everything]).tolist()) == list(range(20))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["train/cat/0001.png", "train/cat/0011.png"], "line 2: no training image 'train/cat/00"),
        (["test/cat/0001.png"], "line 1: no training image 'test/cat/0001.png'; expected names"),
        (["train/cat/0001.png"] * 2, "line 2: 'train/cat/0001.png' is listed twice"),
        (["train/cat/0001.png"], "lists 1 images; a search needs two or more"),
        (
            [f"train/{c}/{n:04}.png" for c in ("cat", "dog") for n in range(9)],
            "search = 18 and confirmation = 0 leave",
        ),
    ],
)
def test_lists_that_are_refused(pets, lines, message):
    (pets / "list.txt").write_text("\n".join(lines))
    refused(config("imagefolder", root="pets", search="list.txt"), pets, message)


def test_lists_that_cannot_be_used(pets):
    wanted = config("imagefolder", root="pets", search="list.txt")
    refused(wanted, pets, r"search = 'list.txt': nothing at .*; give a number of images, or a")
    (pets / "list.txt").write_bytes(b"\xff\xfe")
    refused(wanted, pets, "list.txt: no list of images")
    refused(config("digits", search="list.txt"), pets, "these images have no file names")


# fake


def test_fake_images_are_the_same_each_time():
    wanted = config("fake", kwargs={"size": 30, "image_size": [3, 6, 5], "num_classes": 2})
    first, second = (data.load_search_data(wanted) for _ in range(2))
    assert first.train.images[:].shape == (20, 3, 6, 5)
    assert torch.equal(first.train.images[:], second.train.images[:])
    assert isinstance(first.train.images.pixels, StoredPixels)
    test = data.load_test_split(wanted)
    assert test.indices.tolist() == list(range(30, 60))
    flat = torch.cat([first.train.images[:], test.images[:]]).flatten(1)
    assert len(torch.unique(flat, dim=0)) == 50


def test_fake_data_with_other_arguments(tmp_path):
    refused(config("fake", kwargs={"sise": 3}), tmp_path, "name = 'fake': TypeError")
    refused(config("fake", root="."), tmp_path, "'fake' takes no root")


# torchvision's files


def write_cifar(root, monkeypatch):
    """Two batches as CIFAR-10 ships them: rows of 3072 bytes, and a list of class names."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (40, 3072), dtype=np.uint8)
    for name, part in (("data_batch_1", rows[:30]), ("test_batch", rows[30:])):
        labels = [index % 3 for index in range(len(part))]
        (folder / name).write_bytes(pickle.dumps({"data": part, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c"]}))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None}
    )
    return rows


def test_cifar10_as_torchvision_stores_it(tmp_path, monkeypatch):
    rows = write_cifar(tmp_path / "files", monkeypatch)
    loaded = data.load_search_data(config("cifar10", root="files"), tmp_path)
    for part in (loaded.train, loaded.calibration, loaded.search):
        expected = rows[part.indices.numpy()].reshape(-1, 3, 32, 32) / 255
        assert np.allclose(part.images[:].numpy(), expected, atol=1e-6)
        assert torch.equal(part.labels, part.indices % 3)
    assert data.load_test_split(config("cifar10", root="files"), tmp_path).images[:].shape[0] == 10


def test_arrays_go_through_transforms_too(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    wanted = config("cifar10", transforms=[{"name": "Resize", "size": 48}])
    loaded = data.load_search_data(wanted, tmp_path)
    assert loaded.search.images[:].shape == (6, 3, 48, 48)
    assert isinstance(loaded.search.images.pixels, StoredPixels)


def test_svhn_as_torchvision_stores_it(tmp_path, monkeypatch):
    from torchvision.datasets import SVHN

    rng = np.random.default_rng(0)
    for name, count in (("train", 30), ("test", 10)):
        pixels = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.arange(count)[:, None] % 10 + 1
        savemat(tmp_path / f"{name}_32x32.mat", {"X": pixels, "y": labels})
        monkeypatch.setitem(SVHN.split_list, name, ["", f"{name}_32x32.mat", None])
    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    loaded = data.load_search_data(config("svhn"), tmp_path)
    assert loaded.train.images[:].shape == (20, 3, 32, 32)
    assert torch.equal(loaded.train.labels, (loaded.train.indices + 1) % 10)


@pytest.mark.parametrize(
    ("name", "holding"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_nothing_is_downloaded(tmp_path, name, holding):
    refused(
        config(name), tmp_path, rf"nothing at .*{holding}; .*datasets\.{name.upper()}\(root, d"
    )
    (tmp_path / holding).mkdir()
    refused(config(name), tmp_path, f"name = '{name}': .*")
    assert [path.name for path in tmp_path.iterdir()] == [holding]


# Callables


@pytest.mark.parametrize("targets", [True, False])
def test_datasets_of_a_callable(provider, targets):
    wanted = config("own.py:datasets", kwargs={"targets": targets})
    loaded = data.load_search_data(wanted, provider)
    for part in (loaded.train, loaded.calibration, loaded.search):
        assert torch.equal(part.labels, part.indices % 3)
        assert torch.equal((part.images[:][:, 0, 0, 0] * 255).round().long(), part.indices)
    assert data.load_test_split(wanted, provider).indices.tolist() == list(range(30, 36))


def test_targets_that_are_no_classes_are_drawn_without_regard_to_them(provider):
    masks = data.load_search_data(config("own.py:masks"), provider)
    assert masks.search.labels.shape == (6, 4, 4)
    assert masks.search.labels.dtype == torch.uint8
    values = data.load_search_data(config("own.py:values", augment=["flip"]), provider)
    assert torch.allclose(values.train.labels, values.train.indices.double() / 19)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "own.py:masks", "augment": ["flip"]}, r"not their labels of shape \(4, 4\)"),
        (
            {"name": "own.py:masks", "transforms": [{"name": "Resize", "size": 2}]},
            "leave both empty",
        ),
        ({"name": "own.py:short"}, r"20 images, but labels of shape \(19,\)"),
        (
            {"name": "own.py:three"},
            r"own.py:three': returned 3 values; expected \(train, test\), or",
        ),
        ({"name": "own.py:flat"}, r"image 0: expected a Pillow image or .* shape \(16,\)"),
    ],
)
def test_callables_that_are_refused(provider, changes, message):
    refused(config(**({"name": ""} | changes)), provider, message)
