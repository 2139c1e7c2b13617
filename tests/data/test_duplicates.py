from itertools import combinations

import numpy as np
import pytest

from evosearch.data import imagecache
from evosearch.data import splits as data
from evosearch.data.config import DataConfig
from evosearch.errors import InputError
from tests.data.helpers import images_of

PROVIDER = """
import numpy as np

def twins(train=(), test=()):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 3, 6, 6), dtype=np.uint8)
    others = rng.integers(0, 256, (8, 3, 6, 6), dtype=np.uint8)
    for copy, of in train:
        pixels[copy] = pixels[of]
    for copy, of in test:
        others[copy] = pixels[of]
    return (pixels, np.arange(40) % 4), (others, np.arange(8) % 4)
"""


@pytest.fixture
def provider(tmp_path):
    (tmp_path / "provider.py").write_text(PROVIDER)
    return tmp_path


def config(check=True, **kwargs):
    return DataConfig(
        name="provider.py:twins",
        calibration=8,
        search=12,
        confirmation=10,
        check_duplicates=check,
        kwargs=kwargs,
    )


def positions(provider):
    splits = data.load_search_data(config(), provider)
    return {
        name: getattr(splits, name).indices.tolist()
        for name in ("train", "calibration", "search", "confirmation")
    }


def test_splits_without_a_shared_image_pass(provider):
    data.load_search_data(config(), provider)
    data.load_test_split(config(), provider)


@pytest.mark.parametrize(
    ("left", "right"),
    list(combinations(("train", "calibration", "search", "confirmation"), 2)),
)
def test_an_image_in_two_splits_is_refused(left, right, provider):
    where = positions(provider)
    first, second = where[left][1], where[right][2]
    twins = {"train": [[second, first]]}
    with pytest.raises(InputError) as caught:
        data.load_search_data(config(**twins), provider)
    assert (
        f"check_duplicates: 1 images of the {right} split are in the {left} split too:"
        f" image {second} is image {first}"
    ) in str(caught.value)
    data.load_search_data(config(check=False, **twins), provider)


def test_twins_inside_one_split_pass(provider):
    train = positions(provider)["train"]
    data.load_search_data(config(train=[train[:2]]), provider)


def test_a_test_image_that_was_trained_on_is_refused(provider):
    with pytest.raises(InputError, match="2 images of the test split are in the train, calib"):
        data.load_test_split(config(test=[[3, 5], [4, 9]]), provider)
    data.load_test_split(config(check=False, test=[[3, 5]]), provider)


def test_the_digits_share_no_image(digits_config):
    checked = digits_config.model_copy(update={"check_duplicates": True})
    data.load_search_data(checked)
    data.load_test_split(checked)


def test_hashes_of_files_are_kept(tmp_path, monkeypatch):
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for number, image in enumerate(pixels):
            place = tmp_path / "root" / split / f"class{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number}.png")
    section = DataConfig(name="imagefolder", root="root", calibration=2, search=2)
    from evosearch.data.sources import load_pools

    pools = load_pools(section, tmp_path)
    first, second = (imagecache.image_hashes(pools[k]().images) for k in ("train", "test"))
    np.testing.assert_array_equal(first, second)
    assert len({row.tobytes() for row in first}) == 3
    monkeypatch.setattr(imagecache, "_hashed", None)
    np.testing.assert_array_equal(imagecache.image_hashes(pools["train"]().images), first)
    checked = section.model_copy(update={"check_duplicates": True})
    with pytest.raises(
        InputError, match=r"3 images of the test split .*: val/class0/0\.png is tr"
    ):
        data.load_test_split(checked, tmp_path)


def test_hashes_tell_pixels_apart():
    import torch

    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    images[1, 0, 0, 0] = 1
    hashes = imagecache.image_hashes(images_of(images))
    assert hashes.shape == (3, 16)
    assert hashes[0].tolist() == hashes[2].tolist() != hashes[1].tolist()
