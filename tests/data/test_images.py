"""Images read from files, kept in memory or on disk, are the same tensors."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from evosearch.data import imagecache
from evosearch.data import splits as data
from evosearch.data.config import DataConfig
from evosearch.data.images import Images, LazyPixels, StoredPixels
from evosearch.errors import InputError
from tests.data.helpers import write_folder


def config(**changes):
    settings = {"name": "imagefolder", "root": ".", "calibration": 4, "search": 6}
    return DataConfig(**(settings | changes))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    write_folder(root, "train", 12)
    return write_folder(root, "test", 3, seed=1)


@pytest.fixture
def loads(monkeypatch):
    """Names of the files that were opened."""
    from torchvision.datasets import folder

    opened = []
    real = folder.default_loader

    def counting(path):
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(folder, "default_loader", counting)
    return opened


def cached_files(tmp_path):
    return sorted((tmp_path / "cache" / "images").glob("*"))


def parts_of(loaded):
    return (loaded.train, loaded.calibration, loaded.search)


# Normalisation


def test_bytes_are_normalised_as_they_are_read():
    pixels = StoredPixels(np.array([[[[0, 51]]], [[[102, 255]]]], dtype=np.uint8))
    images = Images(pixels=pixels, positions=np.array([1, 0]), mean=(0.2,), std=(0.4,))
    assert len(images) == 2
    assert images[:].flatten().tolist() == pytest.approx([0.5, 2.0, -0.5, 0.0], abs=1e-6)
    assert images[torch.tensor([1])].dtype == torch.float32
    assert images.raw(slice(0, 1)).tolist() == [[[[102, 255]]]]
    assert images.select(np.array([1]))[:].flatten().tolist() == pytest.approx([-0.5, 0.0])


def test_what_is_read_may_be_changed_without_harm():
    source = np.ones((2, 1, 1, 1), dtype=np.float32)
    images = Images(pixels=StoredPixels(source), positions=np.arange(2))
    images[:].zero_()
    images.raw(slice(None)).zero_()
    assert images[:].flatten().tolist() == [1, 1]


# Kept or read anew


def test_lazily_read_images_equal_those_kept(folder, monkeypatch, tmp_path):
    wanted = config(mean=(0.5,) * 3, std=(0.2, 0.3, 0.4))
    stored = data.load_search_data(wanted, folder)
    assert all(isinstance(part.images.pixels, StoredPixels) for part in parts_of(stored))
    monkeypatch.setattr(imagecache, "CACHE_BYTES", 0)
    lazy = data.load_search_data(wanted, folder)
    assert all(isinstance(part.images.pixels, LazyPixels) for part in parts_of(lazy))
    for one, other in zip(parts_of(stored), parts_of(lazy), strict=True):
        assert torch.equal(one.images[:], other.images[:])
        assert torch.equal(one.labels, other.labels)
    positions, rng = torch.tensor([3, 0]), torch.Generator
    drawn = [p.train.batch(positions, rng().manual_seed(0))[0] for p in (stored, lazy)]
    assert torch.equal(*drawn)


def test_the_pixels_are_those_of_the_files(folder):
    loaded = data.load_search_data(config(), folder)
    for part in parts_of(loaded):
        for image, label, index in zip(part.images[:], part.labels, part.indices, strict=True):
            name = f"{('cat', 'dog')[label]}/{index % 12:04}.png"
            assert int(index) // 12 == label
            pixels = np.asarray(Image.open(folder / "train" / name)).transpose(2, 0, 1)
            assert np.allclose(image.numpy(), pixels / 255, atol=1e-6)


def test_threads_do_not_change_what_is_read(folder, monkeypatch):
    monkeypatch.setattr(imagecache, "CACHE_BYTES", 0)
    one = data.load_search_data(config(), folder).train.images[:]
    torch.set_num_threads(2)
    assert torch.equal(data.load_search_data(config(), folder).train.images[:], one)


def test_a_split_that_fits_by_itself_is_kept(folder, monkeypatch):
    """Of 24 images of 192 bytes: search takes 6, calibration 4, train 14."""
    monkeypatch.setattr(imagecache, "CACHE_BYTES", 6 * 192)
    loaded = data.load_search_data(config(), folder)
    kinds = [type(part.images.pixels) for part in parts_of(loaded)]
    assert kinds == [LazyPixels, StoredPixels, StoredPixels]
    whole = [part.images[:].clone() for part in parts_of(loaded)]
    monkeypatch.setattr(imagecache, "CACHE_BYTES", 24 * 192)
    again = data.load_search_data(config(), folder)
    assert isinstance(again.train.images.pixels, StoredPixels)
    for part, images in zip(parts_of(again), whole, strict=True):
        assert torch.equal(part.images[:], images)


def test_taking_images_copies_none(folder):
    train = data.load_search_data(config(), folder).train
    assert train.take(torch.tensor([2, 1])).images.pixels is train.images.pixels


# On disk


def test_files_are_decoded_once(folder, loads, tmp_path):
    data.load_search_data(config(), folder)
    assert sorted(set(loads)) == [f"{number:04}.png" for number in range(12)]
    loads.clear()
    data.load_search_data(config(search=8), folder)
    assert loads == ["0000.png"]  # the first of train, for the shape of all
    assert len(cached_files(tmp_path)) == 1
    data.load_test_split(config(), folder)
    assert len(cached_files(tmp_path)) == 2


def test_changed_files_or_transforms_are_decoded_anew(folder, tmp_path):
    def load(**changes):
        return data.load_search_data(config(**changes), folder).train.images[:]

    before = load()
    write_folder(folder, "train", 1, seed=9)
    os.utime(folder / "train" / "cat" / "0000.png", ns=(1, 1))
    assert not torch.equal(load(), before)
    assert load(transforms=[{"name": "CenterCrop", "size": 4}]).shape[2:] == (4, 4)
    assert load(transforms=[{"name": "CenterCrop", "size": 6}]).shape[2:] == (6, 6)
    assert len(cached_files(tmp_path)) == 4


def test_a_broken_cache_file_is_made_again(folder, tmp_path):
    before = data.load_search_data(config(), folder).train.images[:]
    (path,) = cached_files(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    assert torch.equal(data.load_search_data(config(), folder).train.images[:], before)
    assert [file.name for file in cached_files(tmp_path)] == [path.name]


def test_an_image_that_cannot_be_read_leaves_no_file(folder, tmp_path):
    (folder / "train" / "dog" / "0007.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"dog/0007\.png: UnidentifiedImageError") as caught:
        data.load_search_data(config(), folder)
    assert "\n" not in str(caught.value)
    assert cached_files(tmp_path) == []


def test_a_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "cache").write_text("a file, no folder")
    with pytest.raises(InputError, match=r"cannot keep 0 MiB .*set \$EVOSEARCH_CACHE"):
        data.load_search_data(config(), folder)


# Sizes and transforms


def test_images_of_different_sizes_need_transforms(tmp_path):
    root = write_folder(tmp_path / "data", "train", 12, size=lambda n: (8 + n % 3, 9))
    write_folder(root, "test", 2)
    message = r"cat/0001\.png: an image of shape \(3, 9, 9\), while the first has \(3, 8, 9\)"
    with pytest.raises(InputError, match=message) as caught:
        data.load_search_data(config(), root)
    assert "[[data.transforms]]" in str(caught.value)
    resize = [{"name": "Resize", "size": 7}, {"name": "CenterCrop", "size": [6, 5]}]
    loaded = data.load_search_data(config(transforms=resize), root)
    assert loaded.train.images[:].shape == (14, 3, 6, 5)


def test_the_transforms_are_torchvisions(folder):
    from torchvision.transforms import v2

    entries = [
        {"name": "Resize", "size": 5, "interpolation": "bicubic"},
        {"name": "Grayscale"},
        {"name": "Pad", "padding": 1},
    ]
    loaded = data.load_search_data(config(transforms=entries), folder)
    image = Image.open(folder / "train" / "cat" / "0000.png")
    resized = v2.Resize(5, interpolation=v2.InterpolationMode.BICUBIC)(image)
    expected = v2.functional.pil_to_tensor(v2.Pad(1)(v2.Grayscale()(resized))) / 255
    found = [part.images[:][part.indices == 0] for part in parts_of(loaded) if 0 in part.indices]
    assert torch.allclose(found[0][0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "Resize", "sise": 3}, r"\[data\] transforms: Resize: TypeError"),
        ({"name": "Resize", "size": 3, "interpolation": "cubic"}, "Resize: ValueError: 'cubic'"),
        ({"name": "Pad", "padding": -9}, r"cat/0000\.png: "),
    ],
)
def test_arguments_that_do_not_fit(folder, entry, message):
    with pytest.raises(InputError, match=message) as caught:
        data.load_search_data(config(transforms=[entry]), folder)
    assert "\n" not in str(caught.value)
