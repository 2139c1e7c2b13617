import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits

from evosearch.data import splits as data
from evosearch.data.config import DataConfig
from evosearch.errors import InputError
from evosearch.tasks import scoring

PINNED = {
    "train": "f9cad01a0e10993c",
    "calibration": "fa9414a1b4a2520d",
    "search": "8ebbb5affe423f13",
    "test": "2f530534540a4710",
}

PROVIDER = """
import numpy as np

def halves(images=40, **kwargs):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 3, 6, 6), dtype=np.uint8)
    labels = np.arange(images) % 4
    return (pixels, labels), (pixels[:8], labels[:8])

def floats(root):
    assert root.is_dir()
    pixels = np.full((20, 1, 4, 4), 0.5)
    return (pixels, np.arange(20) % 2), (pixels[:4], np.arange(4) % 2)

def flat():
    return (np.zeros((20, 16)), np.arange(20) % 2), (np.zeros((4, 16)), np.arange(4) % 2)

def negative():
    return (np.zeros((20, 1, 4, 4)), np.arange(20) % 2 - 1), (np.zeros((4, 1, 4, 4)), np.arange(4))

def broken():
    raise OSError("disk on fire\\nsecond line")
"""


@pytest.fixture
def provider(tmp_path):
    (tmp_path / "provider.py").write_text(PROVIDER)
    return tmp_path


def config(name="digits", **changes):
    settings = {"name": name, "calibration": 8, "search": 12} | changes
    return DataConfig(**settings)


# Splits


def test_the_four_splits_hold_every_digit_once(digits_config, digits):
    parts = [digits.train, digits.calibration, digits.search, data.load_test_split(digits_config)]
    assert [len(part) for part in parts] == [797, 200, 350, 450]
    assert sorted(torch.cat([part.indices for part in parts]).tolist()) == list(range(1797))


def test_indices_point_into_the_source(digits):
    source = load_digits()
    for part in (digits.train, digits.calibration, digits.search):
        indices = part.indices.numpy()
        assert np.array_equal(part.labels.numpy(), source.target[indices])
        expected = (source.images[indices] / 16 - 0.305) / 0.376
        assert np.allclose(part.images[:][:, 0].numpy(), expected, atol=1e-6)
        assert part.images[:].dtype == torch.float32
        assert part.labels.dtype == torch.int64


def test_every_class_has_its_share_of_every_split(digits_config, digits):
    shares = np.bincount(load_digits().target) / 1797
    test = data.load_test_split(digits_config)
    for part in (digits.train, digits.calibration, digits.search, test):
        counts = np.bincount(part.labels.numpy(), minlength=10)
        # Three draws, each of which rounds by less than one image per class.
        assert np.all(np.abs(counts - len(part) * shares) < 3)


def test_splits_depend_on_the_seed_of_the_data_and_nothing_else(digits_config, digits):
    again = data.load_search_data(digits_config)
    assert torch.equal(again.search.indices, digits.search.indices)
    assert torch.equal(again.train.images[:], digits.train.images[:])
    other = data.load_search_data(digits_config.model_copy(update={"seed": 1}))
    assert not torch.equal(other.search.indices, digits.search.indices)


def test_confirmation_takes_from_train_alone(digits_config, digits):
    more = data.load_search_data(digits_config.model_copy(update={"confirmation": 300}))
    assert type(more.confirmation) is data.ConfirmationSplit
    assert (len(more.train), len(more.confirmation), len(digits.confirmation)) == (497, 300, 0)
    assert torch.equal(more.search.indices, digits.search.indices)
    assert torch.equal(more.calibration.indices, digits.calibration.indices)
    both = torch.cat([more.train.indices, more.confirmation.indices])
    assert torch.equal(both.sort().values, digits.train.indices)
    source = load_digits()
    shares = np.bincount(source.target) / 1797
    assert np.array_equal(more.confirmation.labels, source.target[more.confirmation.indices])
    # Four draws, each of which rounds by less than one image per class.
    assert np.all(np.abs(np.bincount(more.confirmation.labels) - 300 * shares) < 4)
    other = digits_config.model_copy(update={"confirmation": 300, "seed": 1})
    drawn = data.load_search_data(other).confirmation.indices
    assert not torch.equal(drawn, more.confirmation.indices)


def test_confirmation_is_not_for_scoring_candidates(digits_config):
    split = data.load_search_data(digits_config.model_copy(update={"confirmation": 10}))
    with pytest.raises(TypeError, match="got a ConfirmationSplit"):
        scoring.score(torch.nn.Flatten(), split.confirmation)


def test_the_test_split_does_not_move_with_the_other_sizes(digits_config):
    smaller = digits_config.model_copy(update={"search": 100, "calibration": 50})
    first, second = data.load_test_split(digits_config), data.load_test_split(smaller)
    assert torch.equal(first.indices, second.indices)


def test_the_digits_splits_are_pinned(digits_config, digits):
    """Base networks and reports refer to these splits; a change must be deliberate."""
    test = data.load_test_split(digits_config)
    parts = {"train": digits.train, "calibration": digits.calibration, "search": digits.search}
    digests = {
        name: hashlib.sha256(part.indices.numpy().tobytes()).hexdigest()[:16]
        for name, part in (parts | {"test": test}).items()
    }
    assert digests == PINNED
    assert test.indices[:5].tolist() == [0, 11, 13, 14, 17]


@pytest.mark.parametrize(
    ("calibration", "search", "confirmation"),
    [(1000, 340, 0), (1347, 2, 0), (2, 1340, 0), (1000, 300, 40), (8, 12, 2000)],
)
def test_too_few_images_left_to_train_on(calibration, search, confirmation):
    sizes = {"calibration": calibration, "search": search, "confirmation": confirmation}
    with pytest.raises(InputError, match=f"confirmation = {confirmation} leave"):
        data.load_search_data(config(**sizes))


def test_overlapping_splits_are_refused(digits):
    search = data.SearchSplit(
        **{n: getattr(digits.train, n) for n in ("images", "labels", "indices")}
    )
    with pytest.raises(InputError, match="TrainSplit and SearchSplit share 797 images"):
        replace(digits, search=search)


@pytest.mark.parametrize("name", ["train", "calibration", "search"])
def test_confirmation_shares_no_image(name, digits):
    other = getattr(digits, name)
    confirmation = data.ConfirmationSplit(
        images=other.images, labels=other.labels, indices=other.indices
    )
    with pytest.raises(InputError, match=f"{type(other).__name__} and ConfirmationSplit share"):
        replace(digits, confirmation=confirmation)


def test_take_keeps_the_type_and_the_augmentation(digits):
    part = digits.train.take(np.array([5, 3]))
    assert type(part) is data.TrainSplit
    assert part.augmentation == digits.train.augmentation
    assert torch.equal(part.indices, digits.train.indices[[5, 3]])
    assert torch.equal(part.images[1:], digits.train.images[3:4])


def test_a_split_cannot_be_changed(digits):
    with pytest.raises(AttributeError):
        digits.search.labels = digits.train.labels


# Types


def test_scoring_refuses_the_test_split_at_run_time(digits_config):
    split = data.load_test_split(digits_config)
    with pytest.raises(TypeError, match=r"expected a SearchSplit or .*, got a TestSplit"):
        scoring.score(torch.nn.Flatten(), split)


@pytest.mark.slow
def test_mypy_refuses_the_wrong_split(tmp_path):
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "from evosearch.data.splits import SearchSplit, load_test_split\n"
        "from evosearch.data.config import DataConfig\n"
        "def search(split: SearchSplit) -> None: ...\n"
        "def run(config: DataConfig) -> None:\n"
        "    search(load_test_split(config))\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path),
        str(snippet),
    ]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert '"search" has incompatible type "TestSplit"; expected "SearchSplit"' in result.stdout


# Configs and callables


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.5,)},
        {"mean": (0.5,), "std": (0.5, 0.5)},
        {"mean": (0.5,), "std": (0.0,)},
        {"search": 1},
        {"search": "list.txt", "calibration": 1},
        {"augment": ("rotate",)},
        {"unknown": 1},
    ],
)
def test_config_refuses(change):
    with pytest.raises(ValidationError):
        config(**change)


def test_bytes_become_shares_and_are_normalised(provider):
    loaded = data.load_search_data(
        config("provider.py:halves", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.5)), provider
    )
    plain = data.load_search_data(config("provider.py:halves"), provider)
    assert [len(loaded.train), len(loaded.calibration), len(loaded.search)] == [20, 8, 12]
    assert 0 <= plain.train.images[:].min() < 0.1
    assert 0.9 < plain.train.images[:].max() <= 1
    expected = (plain.train.images[:][:, 2] - 0.5) / 0.5
    assert torch.allclose(loaded.train.images[:][:, 2], expected)
    assert loaded.train.augmentation.black == (-2.0, -2.0, -1.0)


@pytest.mark.parametrize(
    ("augment", "crop"),
    [
        (["crop"], "black"),
        ([{"name": "crop", "border": "mirror"}], "mirror"),
        ([{"name": "crop", "border": "black"}, "flip"], "black"),
        (["flip"], None),
    ],
)
def test_the_border_of_a_shifted_image(provider, augment, crop):
    loaded = data.load_search_data(config("provider.py:halves", augment=augment), provider)
    assert loaded.train.augmentation.crop == crop


def test_a_callables_test_images_have_indices_of_their_own(provider):
    test = data.load_test_split(config("provider.py:halves"), provider)
    assert test.indices.tolist() == list(range(40, 48))


def test_kwargs_reach_the_callable(provider):
    loaded = data.load_search_data(config("provider.py:halves", kwargs={"images": 60}), provider)
    assert len(loaded.train) == 40


def test_root_is_beside_the_space_file_or_in_the_environment(provider, monkeypatch, tmp_path):
    wanted = config("provider.py:floats", root="images", calibration=4, search=4)
    with pytest.raises(
        InputError, match=r"root = 'images': nothing at .*images; \$EVOSEARCH_DATA"
    ):
        data.load_search_data(wanted, provider)
    (tmp_path / "elsewhere" / "images").mkdir(parents=True)
    monkeypatch.setenv("EVOSEARCH_DATA", str(tmp_path / "elsewhere"))
    assert torch.all(data.load_search_data(wanted, provider).search.images[:] == 0.5)
    monkeypatch.delenv("EVOSEARCH_DATA")
    (provider / "images").mkdir()
    assert len(data.load_search_data(wanted, provider).search) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "mnist"},
            "unknown \\[data\\] name 'mnist': expected one of cifar10, .* module:callable",
        ),
        ({"name": "digits", "kwargs": {"a": 1}}, "'digits' takes no kwargs"),
        ({"name": "digits", "root": "x"}, "'digits' takes no root"),
        ({"name": "cifar1O"}, "did you mean 'cifar10'"),
        ({"name": "digits", "mean": (0.1, 0.2), "std": (1, 1)}, "have 2 values, the images 1"),
        ({"name": "provider.py:flat"}, r"expected images .* got images \(20, 16\)"),
        ({"name": "provider.py:negative"}, "integers from 0"),
        ({"name": "provider.py:broken"}, "OSError: disk on fire$"),
        ({"name": "provider.py:halfs"}, "did you mean 'halves'"),
        ({"name": "provider.py:halves", "kwargs": {"images": "x"}}, "provider.py:halves"),
        ({"name": "missing.py:halves"}, "no file .*missing.py"),
    ],
)
def test_data_that_cannot_be_loaded(changes, message, provider):
    with pytest.raises(InputError, match=message) as caught:
        data.load_search_data(config(**changes), provider)
    assert "\n" not in str(caught.value)
