"""What the lists of images tell apart, and what they do not."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from evosearch.data import imagecache, splits
from evosearch.data.config import DataConfig
from evosearch.data.contents import listed_images, listed_test_images, preparation_digest
from evosearch.errors import InputError
from tests.data.helpers import split_of, write_folder


def config(name="imagefolder", **changes):
    return DataConfig(**({"name": name, "calibration": 4, "search": 6} | changes))


def lists(folder, **changes):
    data = splits.load_search_data(config(**changes), folder)
    return [listed_images(part) for part in (data.train, data.calibration, data.search)]


@pytest.fixture
def folder(tmp_path):
    return write_folder(write_folder(tmp_path / "data", "train", 12), "test", 3)


def test_every_image_of_a_folder_is_in_one_list(folder):
    train, calibration, search = lists(folder)
    assert [len(part) for part in (train, calibration, search)] == [14, 4, 6]
    names = {f"train/{c}/{n:04}.png" for c in ("cat", "dog") for n in range(12)}
    assert train.keys() | calibration.keys() | search.keys() == names
    assert {label for name, (_, label) in train.items() if "/dog/" in name} == {"1"}
    assert (
        len({content for part in (train, calibration, search) for content, _ in part.values()})
        == 24
    )


def test_lists_do_not_depend_on_whether_images_are_kept(folder, monkeypatch):
    kept = lists(folder)
    monkeypatch.setattr(imagecache, "CACHE_BYTES", 0)
    assert lists(folder) == kept


def test_lists_are_the_same_for_a_copy_elsewhere(folder, tmp_path):
    other = write_folder(write_folder(tmp_path / "copy", "train", 12), "test", 3)
    assert lists(other) == lists(folder)
    assert listed_test_images(config(), other) == listed_test_images(config(), folder)


def test_the_test_split_is_listed_apart(folder):
    listed = listed_test_images(config(), folder)
    assert list(listed) == [f"test/{c}/{n:04}.png" for c in ("cat", "dog") for n in range(3)]
    before = lists(folder)
    Image.new("RGB", (8, 8)).save(folder / "test" / "cat" / "0001.png")
    assert lists(folder) == before
    now = listed_test_images(config(), folder)
    assert [name for name in listed if listed[name] != now[name]] == ["test/cat/0001.png"]


def test_a_label_folder_that_is_renamed_changes_names_though_not_labels(folder):
    before = lists(folder)
    for part in ("train", "test"):
        (folder / part / "cat").rename(folder / part / "bat")
    after = lists(folder)
    for old, new in zip(before, after, strict=True):
        assert list(new) == [name.replace("/cat/", "/bat/") for name in old]
        assert list(new.values()) == list(old.values())


def test_an_image_changed_in_place_is_decoded_anew_whatever_its_times(folder):
    """Decoded images go by contents as well: what is listed is what is seen."""
    path = folder / "train" / "cat" / "0003.png"

    def loaded():
        data = splits.load_search_data(config(), folder)
        parts = (data.train, data.calibration, data.search)
        return [(part.images.files.names, listed_images(part), part.images[:]) for part in parts]

    before = loaded()
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(1, 1))
    for (names, old, images), (_, new, others) in zip(before, loaded(), strict=True):
        kept = [name != "train/cat/0003.png" for name in names]
        assert [old[name] == new[name] for name in names] == kept
        assert (images == others).flatten(1).all(1).tolist() == kept


def test_other_libraries_decode_anew(folder, monkeypatch, tmp_path):
    def decoded():
        return len(list((tmp_path / "cache" / "images").iterdir()))

    lists(folder)
    lists(folder)
    assert decoded() == 1
    monkeypatch.setattr(imagecache, "library_versions", lambda: {"pillow": "0.1"})
    lists(folder)
    assert decoded() == 2


def test_test_images_are_of_the_kind_of_the_training_images(folder):
    train = splits.load_search_data(config(), folder).train
    assert listed_test_images(config(), folder, like=train) == listed_test_images(config(), folder)
    write_folder(folder, "test", 3, size=(8, 6))
    with pytest.raises(
        InputError, match=r"test: images of shape \(3, 8, 6\), in train \(3, 8, 8\)"
    ):
        listed_test_images(config(), folder, like=train)


# Images in no files


def listed(images, labels):
    return listed_images(split_of(splits.SearchSplit, images, labels))


def test_images_in_memory_go_by_pixels_and_labels():
    images = torch.arange(24.0).view(3, 2, 2, 2)
    before = listed(images, [0, 1, 0])
    assert list(before) == ["image 0", "image 1", "image 2"]
    assert listed(images.clone(), [0, 1, 0]) == before
    images[1, 0, 0, 0] += 1e-3
    changed = listed(images, [0, 1, 1])
    assert changed["image 0"] == before["image 0"]
    assert changed["image 1"][0] != before["image 1"][0]
    assert changed["image 2"] == (before["image 2"][0], "1")
    assert listed(images.view(3, 2, 1, 4), [0, 1, 1])["image 0"] != changed["image 0"]


def test_labels_that_are_more_than_numbers():
    images = torch.zeros(2, 1, 2, 2)
    masks = torch.zeros(2, 2, 2, dtype=torch.int64)
    before = listed(images, masks)
    assert before["image 0"] == before["image 1"]
    masks[1, 0, 1] = 1
    after = listed(images, masks)
    assert after["image 0"] == before["image 0"] != after["image 1"]
    assert [label for _, label in listed(images, [0.5, 1.0]).values()] == ["0.5", "1.0"]


def test_digits_are_the_same_each_time():
    found = [lists(None, name="digits", calibration=200, search=350) for _ in range(2)]
    assert found[0] == found[1]
    assert len(listed_test_images(config("digits"), None)) == 450


# Preparation


def test_what_is_done_to_images_counts_and_nothing_else():
    digests = {
        preparation_digest(config(**changes))
        for changes in (
            {},
            {"mean": (0.5,), "std": (1,)},
            {"mean": (0.5,), "std": (2,)},
            {"transforms": [{"name": "Resize", "size": 8}]},
            {"transforms": [{"name": "Resize", "size": 9}]},
            {"augment": ["flip"]},
            {"augment": ["crop"]},
            {"augment": [{"name": "crop", "border": "mirror"}]},
        )
    }
    assert len(digests) == 8
    assert preparation_digest(config(root="elsewhere", seed=5, search=8)) in digests
