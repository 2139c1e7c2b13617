"""A split on a device gives what the split itself gives, and reads each image once."""

import numpy as np
import pytest
import torch
from torch import Tensor

from evosearch.calling import SeveralInputs
from evosearch.data.images import Images, StoredPixels
from evosearch.data.several import SeveralImages
from evosearch.data.splits import SearchSplit
from evosearch.models.precision import PLAIN, Numerics
from evosearch.tasks import resident
from evosearch.tasks.resident import CPU_BYTES, ResidentSplit, room_on

CPU, META = torch.device("cpu"), torch.device("meta")
LAST = Numerics(precision="float32", layout="channels_last")


def split(dtype: type = np.uint8, channels: int = 3) -> SearchSplit:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (10, channels, 4, 4)).astype(dtype)
    mean, std = (0.4,) * channels, (0.2,) * channels
    images = Images(pixels=StoredPixels(array), positions=np.arange(10), mean=mean, std=std)
    return SearchSplit(images=images, labels=torch.arange(10), indices=torch.arange(10))


def read(placed: ResidentSplit, *where: int) -> list[Tensor]:
    return [images for images, _ in placed.batches(*where)]


@pytest.mark.parametrize("room", [CPU_BYTES, 480, 0])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("numerics", [PLAIN, LAST])
def test_batches_are_those_of_the_split_bit_for_bit(
    room: int, channels: int, dtype: type, numerics: Numerics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "room_on", lambda _: room)
    own = split(dtype, channels)
    placed = ResidentSplit(own, CPU, numerics)
    for _ in range(2):
        for (images, labels), (known, theirs) in zip(
            placed.batches(4), own.batches(4), strict=True
        ):
            expected = numerics.images(known)
            assert torch.equal(images, expected)
            assert images.stride() == expected.stride()
            assert torch.equal(labels, theirs)
    assert torch.equal(torch.cat(read(placed, 4, 4, 8)), own.images[4:8])


def test_images_are_read_and_normalised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own, reads = split(), []
    real = StoredPixels.read
    monkeypatch.setattr(StoredPixels, "read", lambda *a: reads.append(len(a[1])) or real(*a))
    placed = ResidentSplit(own, CPU, LAST)
    first = read(placed, 4, 0, 4)  # a rung of few images reads no others
    assert reads == [4]
    again = read(placed, 4)
    assert reads == [4, 4, 2]
    assert again[0] is first[0]
    read(placed, 2)  # other batches: those before go
    assert sum(reads) == 20
    assert len(placed._kept) == 5


@pytest.mark.parametrize(
    ("device", "room", "kept"),
    [
        (CPU, 4 * 480, "normalised"),
        (CPU, 4 * 480 - 1, "nothing"),
        (META, 4 * 480, "normalised"),
        (META, 4 * 480 - 1, "raw"),
        (META, 479, "nothing"),
    ],
)
def test_what_stays_on_a_device_depends_on_its_room(
    device: torch.device, room: int, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten images of 48 bytes, which are 4 times as large when normalised."""
    monkeypatch.setattr(resident, "room_on", lambda _: room)
    placed = ResidentSplit(split(), device, LAST)
    for images in read(placed, 4):
        assert images.device == device
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert placed._keeps == kept
    types = {"normalised": {torch.float32}, "raw": {torch.uint8}, "nothing": set()}
    assert {images.dtype for images in placed._kept.values()} == types[kept]


def test_images_of_several_tensors_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = split(), split(np.float32, 1)
    several = SeveralImages(parts={"picture": own.images, "mask": other.images})
    both = SearchSplit(images=several, labels=own.labels, indices=own.indices)
    monkeypatch.setattr(resident, "room_on", lambda _: 10 * (48 + 16) * 4)
    placed = ResidentSplit(both, CPU, LAST)
    first, again = ([images for images, _ in placed.batches(4)] for _ in range(2))
    assert all(one is other for one, other in zip(first, again, strict=True))
    expected = several[slice(4, 8)]
    assert isinstance(first[1], SeveralInputs)
    for name, tensor in expected.parts.items():
        assert torch.equal(first[1].parts[name], tensor)
    monkeypatch.setattr(resident, "room_on", lambda _: 10 * (48 + 16) * 4 - 1)
    assert read(ResidentSplit(both, CPU, LAST), 4)
    assert ResidentSplit(both, META, LAST)._what_fits() == "nothing"


def test_a_quarter_of_what_a_gpu_has_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    assert room_on(torch.device("cuda", 1)) == 250
    assert room_on(CPU) == CPU_BYTES
