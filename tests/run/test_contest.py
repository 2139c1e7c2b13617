"""Plans trained side by side: their rounds, one plan alone, and a kill at any epoch."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.models.weights import weights_digest
from evosearch.run.callbacks import Callbacks
from evosearch.run.compared import Compared
from evosearch.run.contest import Contest, forecast, going_on, train_side_by_side
from evosearch.run.students import Student
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Score
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.epochs import Distillation, EpochRecord

CONFIG = FinetuneConfig(epochs=6, batch_size=32, lr=0.1, average=True)
SEED = 3


@dataclass(frozen=True)
class Outcome:
    """What came of a contest."""

    weights: dict[int, str]
    best: list[int]
    scores: list[list[Any]]


class Killed(Exception):
    pass


def network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    """The base network, and four that differ in their weights."""
    torch.manual_seed(0)
    return [network(6), *(network(3) for _ in range(4))]


@pytest.fixture(scope="module")
def splits(few: tuple[TrainSplit, SearchSplit]) -> tuple[TrainSplit, SearchSplit]:
    return few[0].take(torch.arange(64)), few[1].take(torch.arange(48))


@pytest.fixture(scope="module")
def contest(
    networks: list[nn.Module],
    splits: tuple[TrainSplit, SearchSplit],
    tmp_path_factory: pytest.TempPathFactory,
) -> Contest:
    plans = [
        NamedNetwork(
            name=f"plan {i}", mask=Mask({}), cost=Cost(macs=100 * i, params=1, activations=1)
        )
        for i in range(1, 5)
    ]
    space = SimpleNamespace(base_cost=Cost(macs=1000, params=1, activations=1))
    subject = SimpleNamespace(
        model=networks[0],
        data=SimpleNamespace(train=splits[0], search=splits[1]),
        task=CLASSIFICATION,
        discovery=SimpleNamespace(space=space),
    )
    search = SimpleNamespace(seed=SEED)
    prepared: Any = SimpleNamespace(subject=subject, config=SimpleNamespace(search=search))
    study: Any = None
    return Contest(
        folder=tmp_path_factory.mktemp("contest"),
        study=study,
        prepared=prepared,
        at="half",
        config=CONFIG,
        plans=plans,
    )


@pytest.fixture(scope="module")
def whole(contest: Contest, networks: list[nn.Module]) -> tuple[Outcome, list[int]]:
    """Uncut, and the epochs in the order in which they were trained."""
    torch.set_num_threads(1)
    return trained(contest, networks)


def trained(
    contest: Contest, networks: list[nn.Module], kill_at: Iterable[int] = ()
) -> tuple[Outcome, list[int]]:
    """Trains the four, killed after so many epochs of each session; and the epochs trained."""
    untrained = [
        Compared(name=f"plan {i}", mask=Mask({}), network=network)
        for i, network in enumerate(networks[1:])
    ]
    contest.place.mkdir(parents=True, exist_ok=True)
    epochs: list[int] = []

    def session(kill: int | None) -> Outcome:
        done = 0

        def on_epoch(record: EpochRecord) -> None:
            nonlocal done
            epochs.append(record.epoch)
            done += record.epoch > 0
            if done == kill:
                raise Killed

        last, ended = train_side_by_side(contest, untrained, Callbacks(on_epoch=on_epoch))
        return Outcome(
            weights={index: weights_digest(network) for index, network in last.items()},
            best=[how.best_epoch for how in ended],
            scores=[[record.search for record in how.history] for how in ended],
        )

    def student_of(_: Any, compared: Compared, __: FinetuneConfig) -> Student:
        return Student(network=copy.deepcopy(compared.network), discovery=None)

    with pytest.MonkeyPatch.context() as patch:  # no channel groups are known here
        patch.setattr("evosearch.run.contest.student_of", student_of)
        for kill in kill_at:
            with pytest.raises(Killed):
                session(kill)
        return session(None), epochs


def test_rounds_train_as_many_as_said_and_the_last_two_are_one_plan_alone(
    whole: tuple[Outcome, list[int]],
    networks: list[nn.Module],
    splits: tuple[TrainSplit, SearchSplit],
) -> None:
    """Four to epoch 2, two to epoch 6; bit for bit what each of the two gives by itself."""
    outcome, epochs = whole
    assert epochs == [*[0, 1, 2] * 4, *[3, 4, 5, 6] * 2]
    lengths = [len(scores) for scores in outcome.scores]
    assert sorted(lengths) == [3, 3, 7, 7]
    assert lengths[0] == 7
    others = {i: outcome.scores[i][2].loss for i in (1, 2, 3)}
    rival = min(others, key=others.__getitem__)
    assert set(outcome.weights) == {0, rival}
    for index in (0, rival):
        alone = copy.deepcopy(networks[1 + index])
        how = distil(networks[0], alone, *splits, CONFIG, SEED)
        assert weights_digest(alone) == outcome.weights[index]
        assert how.best_epoch == outcome.best[index]
        assert [record.search for record in how.history] == outcome.scores[index]


@pytest.mark.parametrize("kills", [[1], [5, 3], [8, 2, 1], [11], [9, 4, 3]])
def test_a_kill_at_any_epoch_changes_nothing(
    kills: list[int],
    whole: tuple[Outcome, list[int]],
    contest: Contest,
    networks: list[nn.Module],
    tmp_path: Path,
) -> None:
    """Also one in the last round, whose networks are further than the first round's end then."""
    again, _ = trained(replace(contest, folder=tmp_path), networks, kills)
    assert again == whole[0]


def test_after_a_kill_no_epoch_is_trained_twice_but_the_one_that_was_cut(
    contest: Contest, networks: list[nn.Module], tmp_path: Path
) -> None:
    own = replace(contest, folder=tmp_path)
    _, epochs = trained(own, networks, [11])
    assert len([epoch for epoch in epochs if epoch]) == 16 + 1
    assert trained(own, networks)[1] == []


@pytest.mark.parametrize(
    ("losses", "count", "expected"),
    [
        ({0: 0.9, 1: 0.4, 2: 0.3, 3: 0.5}, 2, [0, 2]),
        ({0: 0.1, 1: 0.4, 2: 0.3, 3: 0.5}, 3, [0, 2, 1]),
        ({0: 0.1, 1: 0.4, 2: 0.4}, 2, [0, 1]),
    ],
)
def test_the_control_goes_on_whatever_it_scores(
    losses: dict[int, float], count: int, expected: list[int]
) -> None:
    assert going_on(losses, count) == expected


def test_costs_by_hand(contest: Contest, networks: list[nn.Module]) -> None:
    """64 images: an epoch of the largest takes 3 x 400 MACs an image, and 1000 of the base."""
    cost = contest.plans[3].cost
    assert contest.image_macs(1, cost) == 64 * (3 * 400 + 1000)
    # Four to epoch 2 and two for 4 more: 16 epochs, of 6 each.
    line = forecast(contest, networks[1])
    assert line.startswith(
        f"finals: 4 networks to epoch 2, 2 to 6 of 6: {16 * 64 * 2200:.3g} image-MACs at most,"
        " forward and backward, as many as 2.67 fine-tunings; about "
    )


def test_other_plans_or_settings_are_other_finals(contest: Contest) -> None:
    places = {
        contest.place,
        replace(contest, plans=contest.plans[:3]).place,
        replace(contest, at="a third").place,
        replace(contest, config=CONFIG.model_copy(update={"epochs": 7})).place,
    }
    assert len(places) == 4


def test_a_finalist_that_got_worse_before_a_kill_is_still_the_one_that_went_on(
    contest: Contest, networks: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan 1 has the least loss at epoch 2, and the most from epoch 3 on, where the kill comes."""
    losses = {0: [0.9] * 7, 1: [0.9, 0.5, 0.3, *[2.0] * 4], 2: [0.4] * 7, 3: [0.5] * 7}
    killing = True

    def told(*_: Any, progress: Path, until: int, **__: Any) -> Distillation:
        index = int(progress.stem.removeprefix("plan-")) - 1
        done = int(progress.read_text()) if progress.exists() else 0
        while done < until:
            done += 1
            progress.write_text(str(done))
            if killing and (index, done) == (1, 4):
                raise Killed
        history = tuple(
            EpochRecord(
                epoch=epoch,
                epochs=6,
                train_loss=None,
                search=Score(loss=loss, loss_se=0.1, accuracy=0.5, accuracy_se=0.1, images=9),
                seconds=0.0,
            )
            for epoch, loss in enumerate(losses[index][: done + 1])
        )
        return Distillation(history=history, best_epoch=0, attention_layers=())

    monkeypatch.setattr("evosearch.run.contest.distil", told)
    own = replace(contest, folder=tmp_path)
    with pytest.raises(Killed):
        trained(own, networks)
    killing = False
    outcome, _ = trained(own, networks)
    assert set(outcome.weights) == {0, 1}
    assert [len(scores) for scores in outcome.scores] == [7, 7, 3, 3]
