"""What a callable may return: datasets as they are, loaders, and splits of its own."""

import pytest
import torch

from evosearch.data import splits
from evosearch.data.config import DataConfig
from evosearch.data.contents import listed_images, listed_test_images
from evosearch.errors import InputError

PROVIDER = """
import numpy as np
import torch
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

def arrays(first, count, side=2):
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return np.tile(numbers[:, None, None, None], (1, 1, side, side)), numbers % 3

class Pictures(torch.utils.data.Dataset):
    def __init__(self, first, count, random=False):
        self.data, self.targets = arrays(first, count)
        self.random = random
    def __len__(self):
        return len(self.data)
    def __getitem__(self, i):
        image = torch.from_numpy(self.data[i])
        if self.random and torch.rand(()) < 0.5:
            image = 255 - image
        return image, (self.targets[i] + 1) % 3

def transformed(random=False):
    return Pictures(0, 40, random), Pictures(200, 8)

def loaders():
    return DataLoader(Pictures(0, 40), shuffle=True, batch_size=8), DataLoader(Pictures(200, 8))

def subset():
    train = Pictures(0, 40)
    some = DataLoader(train, sampler=SubsetRandomSampler(range(20)))
    return some, Pictures(200, 8)

def own(odd=None, **sizes):
    firsts = {"train": 0, "calibration": 60, "search": 80, "confirmation": 100, "test": 120}
    parts = {"train": arrays(0, 40), "test": arrays(120, 8)}
    parts |= {name: arrays(firsts[name], size) for name, size in sizes.items()}
    if odd is not None:
        parts |= eval(odd)
    return dict(reversed(parts.items()))

def returned(what):
    return eval(what)

def yielded():
    yield arrays(0, 40)
    yield arrays(120, 8)
"""


@pytest.fixture
def provider(tmp_path):
    (tmp_path / "own.py").write_text(PROVIDER)
    return tmp_path


def config(name, *, kwargs=None, **changes):
    settings = {"calibration": 4, "search": 6} | changes
    return DataConfig(name=f"own.py:{name}", kwargs=kwargs or {}, **settings)


def own(sizes, odd=None, **changes):
    """Returns the section for splits of its own, which takes no sizes of those."""
    asked = {"calibration": 4, "search": 6}
    asked = {name: size for name, size in asked.items() if name not in sizes}
    more = {} if odd is None else {"odd": odd}
    return DataConfig(name="own.py:own", kwargs=sizes | more, **(asked | changes))


def refused(section, folder, message):
    with pytest.raises(InputError, match=message) as caught:
        splits.load_search_data(section, folder)
    assert "\n" not in str(caught.value)


def pixels(split):
    return (split.images[:][:, 0, 0, 0] * 255).round().int().tolist()


# Datasets and loaders


@pytest.mark.parametrize("name", ["transformed", "loaders"])
def test_labels_are_those_of_the_items(name, provider):
    loaded = splits.load_search_data(config(name), provider)
    for part in (loaded.train, loaded.calibration, loaded.search):
        assert pixels(part) == part.indices.tolist()
        assert torch.equal(part.labels, (part.indices + 1) % 3)
    test = splits.load_test_split(config(name), provider)
    assert pixels(test) == list(range(200, 208))
    assert test.labels.tolist() == [(position + 1) % 3 for position in range(200, 208)]


def test_random_transforms_are_not_frozen_into_a_split(provider):
    section = config("transformed", kwargs={"random": True})
    refused(section, provider, r"'own.py:transformed': train: image \d+ differs .* augment")


def test_a_loader_for_some_of_the_images_is_refused(provider):
    refused(config("subset"), provider, "'own.py:subset': train: a DataLoader whose SubsetRandom")


# Splits of its own

SIZES = {"calibration": 5, "search": 7, "confirmation": 3}


@pytest.mark.parametrize(
    "brought",
    [("search",), ("calibration",), ("confirmation",), ("calibration", "search", "confirmation")],
)
def test_what_is_brought_is_taken_and_the_rest_is_drawn(brought, provider):
    section = own({name: SIZES[name] for name in brought})
    loaded = splits.load_search_data(section, provider)
    firsts = {"calibration": 60, "search": 80, "confirmation": 100}
    sizes = {"calibration": 4, "search": 6, "confirmation": 0}
    sizes |= {name: SIZES[name] for name in brought}
    drawn = {"train": loaded.train}
    for name, size in sizes.items():
        part = getattr(loaded, name)
        assert len(part) == size
        if name in brought:
            assert pixels(part) == list(range(firsts[name], firsts[name] + size))
            assert part.labels.tolist() == [number % 3 for number in pixels(part)]
        else:
            drawn[name] = part
    held = [number for part in drawn.values() for number in pixels(part)]
    assert sorted(held) == list(range(40))
    test = splits.load_test_split(section, provider)
    assert pixels(test) == list(range(120, 128))
    parts = [loaded.train, loaded.calibration, loaded.search, loaded.confirmation, test]
    indices = torch.cat([part.indices for part in parts]).tolist()
    assert len(set(indices)) == len(indices)


def test_what_is_drawn_does_not_depend_on_what_is_brought(provider):
    plain = splits.load_search_data(own({}), provider)
    confirmed = splits.load_search_data(own({"confirmation": 3}), provider)
    assert torch.equal(plain.search.indices, confirmed.search.indices)
    assert torch.equal(plain.train.indices, confirmed.train.indices)


def test_identity_goes_by_what_is_in_a_split_of_its_own(provider):
    def listed(**more):
        loaded = splits.load_search_data(own({"search": 7}, **more), provider)
        return [listed_images(part) for part in (loaded.train, loaded.search)]

    before = listed()
    assert listed() == before
    train, search = listed(odd="{'search': arrays(81, 7)}")
    assert train == before[0]
    assert list(search) == list(before[1])
    assert search != before[1]
    assert len(listed_test_images(own({"search": 7}), provider)) == 8


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("{'search': arrays(38, 4)}", "2 images of the search split are in the train split too"),
        ("{'test': arrays(86, 4)}", "1 images of the test split are in the search split too"),
        (
            "{'confirmation': arrays(79, 3)}",
            "2 images of the confirmation split are in the search",
        ),
    ],
)
def test_an_image_in_two_splits_is_refused(odd, message, provider):
    refused(own({"calibration": 5, "search": 7}, odd), provider, message)
    splits.load_search_data(
        own({"calibration": 5, "search": 7}, odd, check_duplicates=False), provider
    )


def test_a_test_image_in_a_split_of_its_own_is_refused(provider):
    section = own({"search": 7}, "{'test': arrays(86, 4)}", check_duplicates=True)
    with pytest.raises(InputError, match="1 images of the test split are in the search split"):
        splits.load_test_split(section, provider)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            own({"search": 7}, search=6),
            "search = 6, but 'own.py:own' brings a search split; leave",
        ),
        (own({"confirmation": 3}, confirmation=5), "confirmation = 5, but 'own.py:own' brings a"),
        (own({}, calibration=None), "calibration is missing, and 'own.py:own' brings no calib"),
        (own({"search": 1}), "'own.py:own': search: expected two or more images, got 1"),
        (own({"search": 0}), "'own.py:own': search: expected two or more images, got 0"),
        (own({}, "{'valid': arrays(50, 5)}"), "unknown split 'valid': expected one of calib"),
        (
            own({"search": 7}, "{'search': arrays(80, 7, 3)}"),
            r"search: images of shape \(1, 3, 3\), in train \(1, 2, 2\)",
        ),
        (
            own({"search": 7}, "{'search': (arrays(80, 7)[0], np.linspace(0, 1, 7))}"),
            r"search: labels of type torch.float64 of shape \(\), in train torch.int64",
        ),
        (own({"calibration": 5, "search": 7}, confirmation=38), "confirmation = 38 leave 2 of 40"),
        (own({}, "{'test': None}"), "'own.py:own': test: expected arrays .*, got a NoneType"),
        (own({}, "{'test': iter([])}"), "test: expected arrays .*, got a list_iterator"),
    ],
)
def test_splits_of_its_own_that_are_refused(section, message, provider):
    refused(section, provider, message)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("None", r"returned nothing; expected \(train, test\), or a dict of these two and any of"),
        ("yielded()", "returned a generator; expected"),
        ("arrays(0, 40)", "train: image 0: expected .image, label., got ndarray"),
        ("{'train': arrays(0, 40)}", "returned no 'test'; expected"),
        ("((i for i in range(3)), None)", "train: expected arrays .*, got a generator"),
        (
            "(((i for i in range(3)), [0, 1]), None)",
            "train: expected an array of images, got a gen",
        ),
        ("((['a', 'b'], [0, 1]), arrays(0, 9))", "train: images that are no array: "),
        (
            "((arrays(0, 9)[0], ['cat'] * 9), arrays(0, 9))",
            "train: labels that are no array of nu",
        ),
        ("((arrays(0, 9)[0] * 1j, [0] * 9), arrays(0, 9))", "got images .* type torch.complex"),
        (
            "((arrays(0, 9)[0] / 0, [0] * 9), arrays(0, 9))",
            "train: images hold values that are not",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_is_no_data_is_refused(what, message, provider):
    refused(config("returned", kwargs={"what": what}), provider, message)


def test_a_source_with_a_name_brings_no_splits():
    with pytest.raises(ValueError, match="search is missing: training images"):
        DataConfig(name="digits", calibration=4)
