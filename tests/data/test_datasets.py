"""Datasets and loaders of a callable: read as they are, or refused in one line."""

from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from evosearch.data import imagecache
from evosearch.data.datasets import READ_TWICE, dataset_of, read_dataset
from evosearch.errors import InputError


class Items:
    """A dataset of grey images, of which each says its position, with labels of three classes."""

    def __init__(self, size=90):
        self.size, self.reads = size, []

    def __len__(self):
        return self.size

    def image(self, position):
        return torch.full((1, 2, 2), position, dtype=torch.uint8)

    def label(self, position):
        return position % 3

    def __getitem__(self, position):
        self.reads.append(position)
        return self.image(position), self.label(position)


def items(**methods):
    """Returns a dataset whose images or labels come from other functions of the position."""
    kind = type("Other", (Items,), {name: staticmethod(f) for name, f in methods.items()})
    return kind()


def refused(dataset, message):
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(dataset, None)
    assert "\n" not in str(caught.value)


# What is read


@pytest.mark.parametrize("fits", [True, False])
def test_each_item_is_read_once_but_for_the_first_and_those_that_are_compared(fits, monkeypatch):
    monkeypatch.setattr(imagecache, "CACHE_BYTES", 2**32 if fits else 0)
    dataset = Items()
    pixels, labels = read_dataset(dataset, None)
    times = np.bincount(dataset.reads)
    assert sorted(set(dataset.reads)) == list(range(90))
    assert sum(times) == 90 + READ_TWICE + 1  # the first tells the shape of all
    assert times[0] == 3
    assert times.max() == 3
    assert labels.tolist() == [position % 3 for position in range(90)]
    chosen = np.array([4, 89, 0])
    assert pixels.read(chosen)[:, 0, 0, 0].tolist() == [4, 89, 0]
    assert (len(dataset.reads) == sum(times)) == fits


def test_what_items_say_counts_and_not_what_targets_say():
    """A `target_transform` changes items and leaves `targets` as they are in the files."""
    dataset = items(label=lambda position: (position + 1) % 3)
    dataset.targets = [position % 3 for position in range(90)]
    dataset.labels = dataset.targets
    _, labels = read_dataset(dataset, None)
    assert labels.tolist() == [(position + 1) % 3 for position in range(90)]


def test_torchvisions_datasets_with_a_target_transform(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (3, 3)).save(tmp_path / name / f"{number}.png")
    dataset = ImageFolder(tmp_path, target_transform=lambda label: 1 - label)
    assert dataset.targets == [0, 0, 1, 1]
    assert read_dataset(dataset, None)[1].tolist() == [1, 1, 0, 0]


def test_masks_are_stacked():
    dataset = items(label=lambda position: np.full((2, 3), position))
    assert read_dataset(dataset, None)[1][:, 1, 2].tolist() == list(range(90))


# What is refused


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_random_transforms_are_refused(share):
    rng = np.random.default_rng(0)

    def image(position):
        noise = int(rng.integers(1, 100)) * int(rng.random() < share)
        return torch.full((1, 2, 2), position + noise, dtype=torch.uint8)

    refused(items(image=image), r"image \d+ differs when it is read again, .* \[data\] augment")


def test_labels_that_change_are_refused():
    counter = count()
    refused(items(label=lambda _: next(counter) % 2), "label of image 0 differs when it is read")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Items(1), "expected two or more images, got 1"),
        ([{"image": 0}] * 3, r"image 0: expected \(image, label\), got dict"),
        ([(0, 1, 2)] * 3, r"image 0: expected \(image, label\), got 3 values"),
        (np.zeros((4, 3, 2, 2)), r"image 0: expected \(image, label\), got ndarray"),
        (items(label=lambda _: "cat"), "image 0: a label that is no number: .*; expected an int"),
        (items(label=lambda p: np.zeros(1 + p // 7)), r"image 7: a label of shape \(2,\), while"),
        (
            items(image=lambda _: torch.zeros(2, 2)),
            r"image 0: expected a Pillow image or .*\(2, 2",
        ),
        (items(image=lambda p: torch.zeros(1, 2, 2 + p // 5)), r"image 5: an image of shape"),
        (
            items(
                image=lambda p: torch.zeros(1, 2, 2).to(torch.uint8 if p < 3 else torch.float32)
            ),
            "image 3: an image of type torch.float32, while the first has torch.uint8",
        ),
        (items(image=lambda _: torch.full((1, 2, 2), torch.inf)), "image 0: .* not finite"),
        (items(label=lambda p: 1 // (p - 8)), "image 8: ZeroDivisionError"),
    ],
)
def test_items_that_are_refused(dataset, message):
    refused(dataset, message)


# Loaders

DATA = TensorDataset(torch.zeros(12, 1, 2, 2), torch.arange(12))


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 4},
        {"batch_size": 5, "shuffle": True, "drop_last": True},
        {"batch_size": None},
        {"batch_sampler": BatchSampler(RandomSampler(DATA), 4, drop_last=False)},
    ],
)
def test_the_dataset_of_a_loader_is_taken(arguments):
    assert dataset_of(DataLoader(DATA, **arguments)) is DATA


def together(items):
    return items


class Stream(IterableDataset):
    def __iter__(self):
        return iter(DATA)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (
            DataLoader(DATA, sampler=SubsetRandomSampler([1, 2])),
            "DataLoader whose SubsetRandomSam",
        ),
        (DataLoader(DATA, sampler=WeightedRandomSampler([1.0] * 12, 12)), "WeightedRandomSampler"),
        (
            DataLoader(DATA, sampler=RandomSampler(DATA, replacement=True)),
            "RandomSampler may leave",
        ),
        (
            DataLoader(DATA, sampler=RandomSampler(DATA, num_samples=6)),
            r"Subset\(dataset, indices",
        ),
        (
            DataLoader(DATA, batch_sampler=BatchSampler(SubsetRandomSampler([1]), 4, False)),
            "SubsetRandomSampler may leave images out",
        ),
        (DataLoader(DATA, batch_sampler=[[0, 1], [2, 3]]), "DataLoader whose list may leave"),
        (DataLoader(DATA, collate_fn=together), "collate_fn together may .* __getitem__ do it"),
        (DataLoader(Stream()), "a dataset with a length and .* got a Stream"),
    ],
)
def test_loaders_that_mean_something_else_are_refused(loader, message):
    with pytest.raises(InputError, match=message):
        dataset_of(loader)


def test_a_subset_is_a_dataset():
    loader = DataLoader(Subset(DATA, [7, 3]))
    assert read_dataset(dataset_of(loader), None)[1].tolist() == [7, 3]
