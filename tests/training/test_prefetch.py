"""Batches made ahead of the steps, and that nothing else tells."""

import copy
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.calling import SeveralInputs
from evosearch.data.augmentation import Augmentation
from evosearch.data.images import Images, LazyPixels
from evosearch.data.several import SeveralImages
from evosearch.data.splits import TrainSplit
from evosearch.errors import InputError, MemoryExhausted
from evosearch.machine import torch_seeded, torch_threads
from evosearch.training import prefetch
from evosearch.training.base_training import TrainConfig
from evosearch.training.frozen import Kept
from evosearch.training.parts import Batches, Host, Moment, Part
from evosearch.training.prefetch import Prefetch
from evosearch.training.trainer import Training
from tests.data.helpers import images_of

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=2, batch_size=4, lr=0.01)


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are made ahead on the CPU as well."""
    monkeypatch.setattr(prefetch, "UNAIDED", frozenset())


@pytest.fixture(scope="module")
def train() -> TrainSplit:
    drawn = torch.Generator().manual_seed(0)
    return TrainSplit(
        images=images_of(torch.rand((22, 1, 8, 8), generator=drawn)),
        labels=torch.randint(3, (22,), generator=drawn),
        indices=torch.arange(22),
        augmentation=Augmentation(crop="black", flip=True, black=(0.0,)),
    )


class Watched:
    """A source, and which threads made its batches; the batch at `failing` raises `error`."""

    thread_safe = True

    def __init__(self, source: Batches, failing: int = -1, error: Exception | None = None) -> None:
        self._source, self._failing, self._error = source, failing, error
        self.threads: list[str] = []

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Any, Any]:
        self.threads.append("ahead" if "prefetch" in threading.current_thread().name else "main")
        if self._error is not None and len(self.threads) == self._failing:
            raise self._error
        return self._source.batch(positions, rng)


class Meddling(Part):
    """Draws from the training's generator before some steps, and changes its source before one."""

    def __init__(self, rng: torch.Generator, other: Batches) -> None:
        self._rng, self._other = rng, other

    def joined(self, training: Host) -> None:
        self._training = training

    def before_step(self, moment: Moment) -> None:
        if moment.step in (2, 3, 7):
            torch.rand(3, generator=self._rng)
        if moment.step == 9:
            self._training.learn_from(self._other)


def trained(train: TrainSplit, *, meddling: bool) -> tuple[list[Any], list[str]]:
    """Returns the state after each epoch and all that the steps got, and who made the batches."""
    found: list[Any] = []
    with torch_seeded(1):
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 3))

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            found.extend((images.clone(), labels.clone()))
            return functional.cross_entropy(model(images), labels)

        rng = torch.Generator().manual_seed(0)
        watched = Watched(train)
        other = Watched(Kept(torch.rand(22, 64), train.labels))
        parts = [Meddling(rng, other)] if meddling else []
        training = Training(model, train, CONFIG, loss, rng, parts=parts)
        training.learn_from(watched)
        for mean in training.epochs():
            state = copy.deepcopy(training.state())
            found.extend((mean, state["images"], state["dropout"], *state["model"].values()))
    return found, watched.threads + other.threads


@pytest.mark.parametrize("meddling", [False, True], ids=["alone", "with other draws"])
def test_a_training_is_the_same_bit_for_bit(
    meddling: bool, train: TrainSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, by_main = trained(train, meddling=meddling)
    monkeypatch.setattr(prefetch, "UNAIDED", frozenset())
    found, threads = trained(train, meddling=meddling)
    assert set(by_main) == {"main"}
    assert "ahead" in threads
    if not meddling:  # the first of an epoch is not asked for beforehand
        assert threads == 2 * (["main"] + 5 * ["ahead"])
    assert len(found) == len(plain)
    for mine, its in zip(found, plain, strict=True):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(its))


@pytest.mark.usefixtures("ahead")
def test_a_batch_begun_draws_nothing_before_it_is_asked_for(train: TrainSplit) -> None:
    first, second = torch.arange(4), torch.arange(4, 8)
    rng, plain = (torch.Generator().manual_seed(5) for _ in range(2))
    train.batch(first, plain)
    with Prefetch(rng, CPU) as batches:
        batches.batch(train, first, second)
        assert torch.equal(rng.get_state(), plain.get_state())
        images, labels = batches.batch(train, second, None)
        expected, classes = train.batch(second, plain)
    assert isinstance(images, Tensor)
    assert isinstance(expected, Tensor)
    assert torch.equal(images, expected)
    assert torch.equal(labels, classes)
    assert torch.equal(rng.get_state(), plain.get_state())


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_thread_computes_with_as_many_threads_as_the_training(
    threads: int, train: TrainSplit
) -> None:
    counts: list[int] = []

    class Counting(Watched):
        def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Any, Any]:
            counts.append(torch.get_num_threads())
            return super().batch(positions, rng)

    source = Counting(train)
    rng, positions = torch.Generator(), torch.arange(4)
    with torch_threads(threads), Prefetch(rng, CPU) as batches:
        batches.batch(source, positions, positions)
        batches.batch(source, positions, None)
    assert source.threads == ["main", "ahead"]
    assert counts == [threads, threads]


class Counted(Part):
    """Counts steps, and raises after the second where it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.steps, self._error = 0, error

    def after_step(self, images: int) -> None:
        self.steps += 1
        if self._error is not None and self.steps == 2:
            raise self._error


def run(train: TrainSplit, source: Batches, part: Part) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    training = Training(
        model,
        train,
        CONFIG,
        lambda images, labels: functional.cross_entropy(model(images), labels),
        torch.Generator(),
        parts=[part],
    )
    training.learn_from(source)
    list(training.epochs())


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (InputError("cat.jpg: broken"), InputError, "^cat.jpg: broken$"),
        (KeyError("odd"), KeyError, "^'odd'$"),
        (MemoryError(), MemoryExhausted, "^training, raise accumulate or lower batch_size: not"),
    ],
)
def test_an_error_of_the_thread_is_the_trainings_at_its_step(
    error: Exception, kind: type[Exception], message: str, train: TrainSplit
) -> None:
    before = threading.active_count()
    source, counted = Watched(train, failing=4, error=error), Counted()
    with pytest.raises(kind, match=message):
        run(train, source, counted)
    assert source.threads == ["main", "ahead", "ahead", "ahead"]
    assert counted.steps == 3
    assert threading.active_count() == before


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a part")])
def test_a_training_that_stops_in_an_epoch_leaves_no_thread(
    error: BaseException, train: TrainSplit
) -> None:
    before = threading.active_count()
    source = Watched(train)
    with pytest.raises(type(error)):
        run(train, source, Counted(error))
    assert source.threads[:2] == ["main", "ahead"]  # the third may not have been begun
    assert threading.active_count() == before


@pytest.mark.usefixtures("ahead")
def test_what_draws_from_torchs_own_generator_stays_in_the_trainings_thread(
    train: TrainSplit,
) -> None:
    names: list[str] = []

    def named(image: Tensor) -> Tensor:
        names.append(threading.current_thread().name)
        return image + torch.rand(())

    drawing = replace(train, augmentation=Augmentation(transform=named))
    positions = torch.arange(2)
    with Prefetch(torch.Generator(), CPU) as batches:
        batches.batch(drawing, positions, positions)
        batches.batch(drawing, positions, None)
    assert names == 4 * [threading.main_thread().name]


def test_arrays_are_read_by_any_thread_and_datasets_by_one(train: TrainSplit) -> None:
    array = train.images
    assert isinstance(array, Images)
    dataset = Images(
        pixels=LazyPixels(lambda _: torch.zeros(1, 8, 8), 22, None), positions=np.arange(22)
    )
    both = SeveralImages(parts=(array, dataset))
    assert train.thread_safe
    assert not replace(train, images=dataset).thread_safe
    assert not replace(train, images=both).thread_safe
    assert replace(train, images=SeveralImages(parts=(array, array))).thread_safe


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_batches_for_a_gpu_are_pinned(train: TrainSplit) -> None:
    array = train.images
    assert isinstance(array, Images)
    several = replace(train, images=SeveralImages(parts=(array, array)))
    positions = torch.arange(4)
    for source in (train, several):
        with Prefetch(torch.Generator(), torch.device("cuda")) as batches:
            for following in (positions, None):
                images, labels = batches.batch(source, positions, following)
                parts = images.parts if isinstance(images, SeveralInputs) else (images,)
                assert isinstance(parts, tuple)
                assert isinstance(labels, Tensor)
                assert all(tensor.is_pinned() for tensor in (*parts, labels))
