"""The average of weights over the last steps: its values, its competition, and a kill."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.models.weights import weights_digest
from evosearch.models.zoo import digits_resnet
from evosearch.study.scores import Score
from evosearch.training import bestepoch
from evosearch.training.averaging import SHARE, Averaging
from evosearch.training.base_training import TrainConfig
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.epochs import Distillation
from evosearch.training.trainer import Training

CONFIG = FinetuneConfig(epochs=4, batch_size=48, average=True)
Splits = tuple[TrainSplit, SearchSplit]


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return digits_resnet(width=4).eval(), digits_resnet(width=3).eval()


def tuned(
    networks: tuple[nn.Module, nn.Module], few: Splits, config: FinetuneConfig, **given: Any
) -> tuple[nn.Module, Distillation]:
    student = copy.deepcopy(networks[1])
    outcome = distil(networks[0], student, *few, config, 0, **given)
    return student, outcome


def likes(monkeypatch: pytest.MonkeyPatch, losses: Iterator[float]) -> None:
    """Makes the search split give these losses, one after the other."""
    real = bestepoch.score

    def scored(model: nn.Module, split: SearchSplit, task: Any) -> Score:
        return Score(**{**vars(real(model, split, task=task)), "loss": next(losses)})

    monkeypatch.setattr(bestepoch, "score", scored)


def test_the_mean_is_that_of_the_weights_after_each_of_the_last_steps(few: Splits) -> None:
    """Of 2 epochs of 4 steps the last 2 count; the mean is taken of copies, in double."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    seen: list[torch.Tensor] = []

    class Watching(Averaging):  # type: ignore[misc]  # final but for this test
        def after_step(self, images: int) -> None:
            super().after_step(images)
            seen.append(model[1].weight.detach().double().clone())

    averaging = Watching()
    config = TrainConfig(epochs=2, batch_size=48)
    training = Training(
        model,
        few[0],
        config,
        lambda x, y: nn.functional.cross_entropy(model(x), y),
        torch.Generator().manual_seed(0),
        parts=[averaging],
    )
    assert len(list(training.epochs())) == 2
    assert len(seen) == 8
    assert SHARE == 0.25
    torch.testing.assert_close(model[1].weight.double(), seen[-1])
    averaging.take_over()
    mean = (seen[-2] + seen[-1]) / 2
    torch.testing.assert_close(model[1].weight.double(), mean, rtol=1e-6, atol=1e-8)
    assert (mean - seen[-1]).abs().max() > 1e-5


def test_averaging_leaves_the_training_itself_as_it_is(
    networks: tuple[nn.Module, nn.Module], few: Splits
) -> None:
    """Every epoch scores what it does without; the last one that, or the average if better."""
    _, plain = tuned(networks, few, CONFIG.model_copy(update={"average": False}))
    _, averaged = tuned(networks, few, CONFIG)
    scores = [[r.search for r in d.history] for d in (plain, averaged)]
    assert scores[0][:-1] == scores[1][:-1]
    first, second = scores[0][-1], scores[1][-1]
    assert first is not None
    assert second is not None
    assert averaged.history[-1].averaged == (second.loss < first.loss)
    assert not any(record.averaged for record in (*plain.history, *averaged.history[:-1]))


@pytest.mark.parametrize(
    ("losses", "best", "wins"),
    [
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 4, True),
        ([0.9, 0.8, 0.7, 0.6, 0.4, 0.5], 4, False),
        ([0.9, 0.3, 0.7, 0.6, 0.5, 0.4], 1, False),
    ],
)
def test_the_average_competes_once_with_the_best_epoch(
    losses: list[float],
    best: int,
    wins: bool,
    networks: tuple[nn.Module, nn.Module],
    few: Splits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    likes(monkeypatch, iter(losses))
    _, outcome = tuned(networks, few, CONFIG)
    assert len(outcome.history) == 5
    assert outcome.best_epoch == best
    assert outcome.best.averaged == wins
    found = outcome.history[-1].search
    assert found is not None
    assert found.loss == min(losses[-2:])


def test_an_average_that_wins_has_statistics_of_its_own_weights(
    networks: tuple[nn.Module, nn.Module], few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    likes(monkeypatch, iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.9, 0.8, 0.7, 0.6, 0.4, 0.5]))
    averaged, _ = tuned(networks, few, CONFIG)
    last, _ = tuned(networks, few, CONFIG)
    with torch.no_grad():
        for mean, own in zip(averaged.modules(), last.modules(), strict=True):
            if isinstance(mean, nn.BatchNorm2d) and isinstance(own, nn.BatchNorm2d):
                assert not torch.equal(mean.running_mean, own.running_mean)
                assert not torch.equal(mean.weight, own.weight)


@pytest.mark.parametrize("stop", [3, 4])
def test_a_training_that_stops_and_goes_on_keeps_its_average(
    stop: int, networks: tuple[nn.Module, nn.Module], few: Splits, tmp_path: Path
) -> None:
    """Also with more than the last epoch in it, where a stop comes amid the average."""
    config = CONFIG.model_copy(update={"epochs": 10})
    whole, uncut = tuned(networks, few, config)
    progress = tmp_path / "progress"
    _, part = tuned(networks, few, config, progress=progress, until=stop + 5)
    assert len(part.history) == stop + 6
    again, resumed = tuned(networks, few, config, progress=progress)
    assert weights_digest(again) == weights_digest(whole)
    assert [r.search for r in resumed.history] == [r.search for r in uncut.history]
    assert [r.averaged for r in resumed.history] == [r.averaged for r in uncut.history]
    third, _ = tuned(networks, few, config, progress=progress)
    assert weights_digest(third) == weights_digest(whole)


@pytest.mark.parametrize("until", [0, 2])
def test_a_training_that_stops_early_is_the_beginning_of_the_whole_one(
    until: int, networks: tuple[nn.Module, nn.Module], few: Splits
) -> None:
    _, whole = tuned(networks, few, CONFIG)
    _, part = tuned(networks, few, CONFIG, until=until)
    assert [r.search for r in part.history] == [r.search for r in whole.history[: until + 1]]
