"""Images that are several tensors each: from arrays and datasets, in splits, told apart."""

import numpy as np
import pytest
import torch

from evosearch.calling import SeveralInputs
from evosearch.data import imagecache
from evosearch.data.config import DataConfig
from evosearch.data.contents import listed_images
from evosearch.data.splits import load_search_data, load_test_split
from evosearch.errors import InputError

CODE = """
import numpy as np

def arrays(count, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 1, 4, 4), np.uint8)
    return pixels, rng.normal(size=(count, 3)), np.arange(count) % 2

def named():
    def part(count, seed):
        pixels, vectors, labels = arrays(count, seed)
        return {"image": pixels, "vector": vectors}, labels
    return {"train": part(20, 0), "search": part(6, 1), "test": part(4, 2)}

class Pairs:
    def __init__(self, count, seed):
        self.arrays = arrays(count, seed)
    def __len__(self):
        return len(self.arrays[0])
    def __getitem__(self, i):
        pixels, vectors, labels = self.arrays
        return (pixels[i], vectors[i]), labels[i]

def placed():
    return {"train": Pairs(20, 0), "search": Pairs(6, 1), "test": Pairs(4, 2)}

class Turning(Pairs):
    def __getitem__(self, i):
        (pixels, vector), label = super().__getitem__(i)
        return ((pixels, vector), label) if i < 5 else ({"image": pixels, "vector": vector}, label)

def turning():
    return {"train": Turning(20, 0), "search": Pairs(6, 1), "test": Pairs(4, 2)}

def short():
    (images, labels) = named()["train"]
    images["vector"] = images["vector"][1:]
    return {**named(), "train": (images, labels)}

def renamed():
    (images, labels) = named()["search"]
    return {**named(), "search": ({"image": images["image"], "other": images["vector"]}, labels)}

def doubled():
    return {**named(), "search": tuple(_first(part) for part in named()["train"])}

def _first(part):
    return {k: v[:6] for k, v in part.items()} if isinstance(part, dict) else part[:6]

def turned():
    return {name: (dict(reversed(part.items())), y) for name, (part, y) in named().items()}

def swapped():
    return {
        name: ({"image": part["vector"], "vector": part["image"]}, y)
        for name, (part, y) in named().items()
    }

def empty():
    return {**named(), "train": ({}, np.arange(20))}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path


def section(name, **changes):
    return DataConfig(name=f"own.py:{name}", calibration=8, **changes)


def expected(count, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 1, 4, 4), np.uint8)
    return pixels.astype(np.float32) / 255, rng.normal(size=(count, 3)).astype(np.float32)


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("name", ["named", "placed"])
def test_splits_give_every_tensor_of_an_image(name, fits, folder, monkeypatch):
    monkeypatch.setattr(imagecache, "CACHE_BYTES", 2**32 if fits else 0)
    data = load_search_data(section(name), folder)
    test = load_test_split(section(name), folder)
    assert [len(part) for part in (data.train, data.calibration, data.search, test)] == [
        12,
        8,
        6,
        4,
    ]
    sources = ((data.train, 20, 0), (data.search, 6, 1), (test, 4, 2))
    firsts = {0: 0, 1: 24, 2: 20}
    for split, count, seed in sources:
        positions = split.indices.numpy() - firsts[seed]
        for images, labels in split.batches(5):
            assert isinstance(images, SeveralInputs)
            parts = list(images.parts.values() if name == "named" else images.parts)
            if name == "named":
                assert list(images.parts) == ["image", "vector"]
            own, positions = positions[: len(images)], positions[len(images) :]
            for tensor, source in zip(parts, expected(count, seed), strict=True):
                assert tensor.dtype == torch.float32
                np.testing.assert_array_equal(tensor.numpy(), source[own])
            assert labels.tolist() == (own % 2).tolist()
    drawn, _ = data.train.batch(torch.tensor([3, 1]), torch.Generator())
    assert len(drawn) == 2


def test_an_image_is_told_apart_by_all_of_its_tensors(folder):
    before = listed_images(load_search_data(section("named"), folder).search)
    code = CODE.replace(
        "rng.normal(size=(count, 3))", "rng.normal(size=(count, 3)) + (count == 6)"
    )
    (folder / "own.py").write_text(code)
    after = listed_images(load_search_data(section("named"), folder).search)
    assert list(before) == list(after)
    assert all(before[name][0] != after[name][0] for name in before)
    assert len({content for content, _ in after.values()}) == 6


def test_tensors_by_name_are_the_same_images_in_whatever_order(folder):
    found = [
        listed_images(load_search_data(section(name), folder).search)
        for name in ("named", "turned", "swapped")
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("named", {"augment": ["flip"]}, "mean, std, transforms and augment are for one image"),
        ("named", {"mean": [0.5], "std": [0.2]}, "give inputs as the network takes them$"),
        ("short", {}, r"train: several inputs, of \[20, 19\] images; expected as many of each"),
        ("empty", {}, "train: several inputs, of no images"),
        ("renamed", {}, r"search: images of shape \{'image': .*'other'.*, in train \{'image'"),
        ("turning", {}, "image 5: several: image, vector, while the first has several: 0, 1"),
        ("doubled", {}, "check_duplicates: . images of the .* split are in the .* split too"),
    ],
)
def test_what_does_not_fit_is_one_line(name, changes, message, folder):
    with pytest.raises(InputError, match=message) as error:
        load_search_data(section(name, **changes), folder)
    assert "\n" not in str(error.value)
