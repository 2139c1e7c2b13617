import pytest
import torch

from evosearch.data.augmentation import Augmentation
from evosearch.data.config import DataConfig
from evosearch.data.splits import load_search_data
from evosearch.errors import InputError


def images(count=64, channels=2, height=8, width=16):
    size = count * channels * height * width
    return torch.arange(1, size + 1, dtype=torch.float32).view(count, channels, height, width)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_none_returns_the_same_images():
    batch = images()
    assert Augmentation().apply(batch, rng()) is batch


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else():
    batch = images(count=400)
    flipped = Augmentation(flip=True, black=(0.0, 0.0)).apply(batch, rng())
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, batch, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(flipped, batch, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


def test_crop_is_one_shift_per_image_within_an_eighth_of_the_side():
    batch = images()
    border = (-5.0, -7.0)
    moved = Augmentation(crop="black", black=border).apply(batch, rng())
    padded = torch.tensor(border).view(1, 2, 1, 1).expand(64, 2, 8 + 2, 16 + 4).clone()
    padded[:, :, 1:-1, 2:-2] = batch
    seen = set()
    for image, source in zip(moved, padded, strict=True):
        shifts = [
            (row, column)
            for row in range(3)
            for column in range(5)
            if torch.equal(image, source[:, row : row + 8, column : column + 16])
        ]
        assert len(shifts) == 1
        seen.add(shifts[0])
    assert len(seen) > 10


def test_crop_may_mirror_what_lies_beside_the_border():
    batch = images()
    moved = Augmentation(crop="mirror", black=(-5.0, -7.0)).apply(batch, rng())
    padded = torch.nn.functional.pad(batch, (2, 2, 1, 1), mode="reflect")
    black = Augmentation(crop="black", black=(-5.0, -7.0)).apply(batch, rng())
    for image, source, same in zip(moved, padded, black, strict=True):
        shifts = [
            torch.equal(image, source[:, row : row + 8, column : column + 16])
            for row in range(3)
            for column in range(5)
        ]
        assert sum(shifts) == 1
        inside = same > 0
        assert torch.equal(image[inside], same[inside])


def test_an_image_of_one_pixel_has_nothing_to_mirror():
    batch = images(4, 1, 1, 1)
    assert torch.equal(Augmentation(crop="mirror", black=(0.0,)).apply(batch, rng()), batch)


@pytest.mark.parametrize("side", [4, 8])
def test_small_images_still_shift_by_one_pixel(side):
    moved = Augmentation(crop="black", black=(0.0,)).apply(images(32, 1, side, side), rng())
    assert moved.shape == (32, 1, side, side)
    assert bool((moved == 0).any())


def test_the_draw_is_the_generators_alone():
    augmentation = Augmentation(crop="black", flip=True, black=(0.0, 0.0))
    torch.manual_seed(1)
    first = augmentation.apply(images(), rng(3))
    torch.manual_seed(2)
    assert torch.equal(first, augmentation.apply(images(), rng(3)))
    assert not torch.equal(first, augmentation.apply(images(), rng(4)))


def test_a_batch_has_the_labels_of_its_images(digits):
    """Shifted by at most a pixel, an image is nearer to itself than to nearly all others."""
    positions = torch.arange(100)
    batch, labels = digits.train.batch(positions, rng())
    assert torch.equal(labels, digits.train.labels[:100])
    assert batch.shape == (100, 1, 8, 8)
    centre = batch[:, 0, 2:6, 2:6].flatten(1)
    windows = [
        digits.train.images[:100][:, 0, 2 + r : 6 + r, 2 + c : 6 + c].flatten(1)
        for r in (-1, 0, 1)
        for c in (-1, 0, 1)
    ]
    distances = torch.stack([torch.cdist(centre, window) for window in windows]).amin(0)
    assert torch.equal(distances.argmin(1), positions)


# Transforms by name


def augmented(entries, **changes):
    settings = {"name": "fake", "kwargs": {"size": 40, "image_size": [3, 8, 8]}}
    sizes = {"calibration": 4, "search": 4}
    return load_search_data(DataConfig(**settings, **sizes, augment=entries, **changes)).train


def test_named_transforms_draw_for_each_image_and_from_the_generator_alone():
    train = augmented([{"name": "RandomErasing", "p": 0.5, "value": 7}])
    positions = torch.arange(len(train))
    torch.manual_seed(1)
    first, labels = train.batch(positions, rng(3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(train.batch(positions, rng(3))[0], first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(train.batch(positions, rng(4))[0], first)
    assert torch.equal(labels, train.labels)
    same = [torch.equal(a, b) for a, b in zip(first, train.images[:], strict=True)]
    assert 0 < sum(same) < len(same)
    changed = first != train.images[:]
    assert torch.allclose(first[changed], torch.tensor(7 / 255))


def test_named_transforms_come_before_normalisation_and_flip():
    entries = [{"name": "RandomInvert", "p": 1.0}, "flip"]
    train = augmented(entries, mean=(0.5,) * 3, std=(0.5,) * 3)
    images, _ = train.batch(torch.arange(len(train)), rng())
    inverted = -train.images[:]
    either = (images - inverted).abs().amax((1, 2, 3)) < 1e-6
    mirrored = (images - inverted.flip(-1)).abs().amax((1, 2, 3)) < 1e-6
    assert bool((either ^ mirrored).all())
    assert 0 < int(either.sum()) < len(train)


def test_a_transform_that_fails_is_one_line():
    train = augmented([{"name": "RandomCrop", "size": 20}])
    with pytest.raises(InputError, match=r"^\[data\] augment: ValueError: ") as caught:
        train.batch(torch.arange(2), rng())
    assert "\n" not in str(caught.value)
