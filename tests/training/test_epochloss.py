"""The objective of an epoch, and how seldom a training waits for its device."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.errors import EvaluationError
from evosearch.models.zoo import digits_resnet
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.training import epochloss
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.elastic import ElasticConfig, train_elastic
from evosearch.training.epochloss import EpochLoss
from evosearch.training.trainer import Training

SCHEDULE = TrainConfig(epochs=3, lr=0.5)
Splits = tuple[TrainSplit, SearchSplit]


class HostReads(TorchDispatchMode):
    """Counts how often Python asks a tensor for a value, by `item`, `float`, `int` or `bool`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostReads]:
    """Counts them inside the block, and calls of `tolist`."""
    real = Tensor.tolist
    with HostReads() as reads, monkeypatch.context() as patched:

        def tolist(tensor: Tensor) -> Any:
            reads.count += 1
            return real(tensor)

        patched.setattr(Tensor, "tolist", tolist)
        yield reads


def losses(*values: float) -> list[Tensor]:
    return [torch.tensor(value) for value in values]


def test_the_mean_is_over_images_and_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EpochLoss(SCHEDULE, 1)
    with host_reads(monkeypatch) as reads:
        for loss, images in zip(losses(1.0, 2.0, 4.0), (3, 3, 2), strict=True):
            found.add(loss, images)
        assert reads.count == 0
        assert found.mean() == (1 * 3 + 2 * 3 + 4 * 2) / 8
        assert reads.count == 1


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_one_step_that_is_not_finite_is_refused(odd: float) -> None:
    message = rf"diverged in epoch 2 of 3 \(loss {odd}\); lower lr = 0.5"
    for ask in (EpochLoss.mean, EpochLoss.require_finite):
        found = EpochLoss(SCHEDULE, 2)
        for loss in losses(1.0, odd, 1.0):
            found.add(loss, 4)
        with pytest.raises(EvaluationError, match=message):
            ask(found)


def test_it_is_refused_before_a_long_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochloss, "UNREAD", 3)
    found = EpochLoss(SCHEDULE, 1)
    for loss in losses(1.0, 1.0, 1.0, float("nan"), 1.0):
        found.add(loss, 4)
    with pytest.raises(EvaluationError, match="diverged in epoch 1"):
        found.add(torch.tensor(1.0), 4)


@pytest.fixture(scope="module")
def base() -> nn.Module:
    torch.manual_seed(0)
    return digits_resnet(width=4).eval()


@pytest.fixture(scope="module")
def discovery(base: nn.Module) -> Discovery:
    return discover(base, (torch.randn(2, 1, 8, 8),), GroupRules(), seed=0)


def train_a_base(model: nn.Module, discovery: Discovery, few: Splits, size: int) -> None:
    config = TrainConfig(epochs=1, batch_size=size, penalties={"bn_l1": 1e-4})
    train_base(model, few[0], None, config, 0, discovery=discovery)


def finetune(model: nn.Module, discovery: Discovery, few: Splits, size: int) -> None:
    config = FinetuneConfig(
        epochs=1,
        batch_size=size,
        attention=1.0,
        average=True,
        penalties={"group_lasso": 1e-4, "polarization": 1e-4},
    )
    distil(copy.deepcopy(model), model, *few, config, 0, discovery=discovery)


def make_elastic(model: nn.Module, discovery: Discovery, few: Splits, size: int) -> None:
    groups, whole = discovery.space.groups, discovery.space.full_mask()
    first = groups[0].name
    halves = [Mask({**whole, first: np.arange(groups[0].size) % 2 == odd}) for odd in (0, 1)]
    config = ElasticConfig(epochs=1, batch_size=size)
    start = partial(compact, model, groups)
    train_elastic(model, groups, halves, few[0], config, 0, start=start)


@pytest.mark.parametrize("training", [train_a_base, finetune, make_elastic])
def test_no_step_reads_a_value(
    training: Callable[..., None],
    base: nn.Module,
    discovery: Discovery,
    few: Splits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many values are read in an epoch of eight steps as in one of two."""
    counts = []
    for size in (96, 24):
        with host_reads(monkeypatch) as reads:
            training(copy.deepcopy(base), discovery, few, size)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("resident", [True, False], ids=["on the GPU", "brought there"])
def test_no_step_waits_for_a_gpu(
    resident: bool, few: Splits, recwarn: pytest.WarningsRecorder
) -> None:
    model = digits_resnet(width=4).to("cuda")
    images, labels = few[0].images[:].to("cuda"), few[0].labels.to("cuda")
    counts = []

    class Resident:
        thread_safe = False

        def __len__(self) -> int:
            return len(labels)

        def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            first = int(positions[0]) % (len(labels) - len(positions) + 1)
            return images[first:][: len(positions)], labels[first:][: len(positions)]

    for size in (96, 24):
        config = TrainConfig(epochs=2, batch_size=size)
        training = Training(
            model,
            few[0],
            config,
            lambda x, y: functional.cross_entropy(model(x), y),
            torch.Generator().manual_seed(0),
        )
        if resident:
            training.learn_from(Resident())
        epochs = training.epochs()
        next(epochs)  # code is loaded
        recwarn.clear()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(epochs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchroniz" in str(warning.message) for warning in recwarn))
    assert counts[0] == counts[1] > 0
