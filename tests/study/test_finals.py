"""The record of finals: read as it was written, and what it says of the search's score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evosearch.errors import InputError
from evosearch.space.budget import BudgetRequest
from evosearch.study.finals import Finalist, Finals, load_finals
from evosearch.study.networks import NamedNetwork
from evosearch.study.pairedgain import PairedGain
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation
from tests.toys import toy_space

SPACE = toy_space()
HALF = BudgetRequest.of(flops="50%").resolve(SPACE.base_cost)


def score(loss: float, accuracy: float) -> Score:
    return Score(loss=loss, loss_se=0.01, accuracy=accuracy, accuracy_se=0.01, images=100)


def finalist(number: int, loss: float, *after: float) -> Finalist:
    """A plan of some search loss, with its accuracies after each epoch."""
    mask = SPACE.sample(np.random.default_rng(number), HALF)
    plan = NamedNetwork(
        name=f"trial {number}",
        mask=mask,
        cost=SPACE.cost(mask),
        evaluation=Evaluation(score=score(loss, 0.5), seconds=0.0),
    )
    history = (score(loss, 0.5), *(score(1 - accuracy, accuracy) for accuracy in after))
    return Finalist(plan=plan, history=history, best_epoch=len(after))


def finals() -> Finals:
    """Four networks for an epoch, two of them for three; losses order them as 1 0 2 3."""
    return Finals(
        at="flops=50%",
        epochs=3,
        finalists=(
            finalist(0, 0.4, 0.61, 0.7, 0.8),
            finalist(1, 0.3, 0.6, 0.75, 0.85),
            finalist(2, 0.5, 0.55),
            finalist(3, 0.6, 0.5),
        ),
        rival=1,
        winner=1,
        test=score(0.2, 0.9),
        gain=PairedGain(images=100, gained=4, lost=2, low=-0.03, high=0.07),
        confirmed=None,
        image_macs=12345,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    own = finals()
    own.save(tmp_path / "a")
    replace(own, at="flops=30%", gain=None).save(tmp_path / "b")
    assert Finals.load(tmp_path / "a", SPACE.sizes) == own
    assert [found.at for found in load_finals(tmp_path, SPACE.sizes)] == ["flops=30%", "flops=50%"]
    (tmp_path / "b" / "finals.json").write_text("{}")
    assert load_finals(tmp_path, SPACE.sizes) == (own,)
    with pytest.raises(InputError, match="not the record of finals"):
        Finals.load(tmp_path / "b", SPACE.sizes)
    assert load_finals(tmp_path / "nowhere", SPACE.sizes) == ()


def test_the_winner_is_the_network_of_its_best_epoch_with_its_test_score() -> None:
    own = finals()
    network = own.network
    assert network.name == "trial 1, distilled 3 epochs"
    assert network.search == own.finalists[1].history[3]
    assert network.test == own.test
    early = replace(own.finalists[1], best_epoch=1)
    other = replace(own, finalists=(own.finalists[0], early, *own.finalists[2:]))
    assert other.network.search.accuracy == 0.6


def test_the_score_is_compared_where_three_had_equal_epochs() -> None:
    """Scores order 1 0 2 3, accuracies after the first epoch 0 1 2 3: one exchange, 0.8."""
    own = finals()
    assert own.compared_at == 1
    assert own.telling is not None
    assert own.telling.rho == pytest.approx(0.8)
    assert own.telling.count == 4
    third = finalist(2, 0.5, 0.55, 0.9)
    three = replace(own, finalists=(*own.finalists[:2], third, own.finalists[3]))
    # After two epochs: scores 1 0 2, accuracies 0.75 0.7 0.9, of which the last is first.
    assert three.compared_at == 2
    assert three.telling is not None
    assert three.telling.rho == pytest.approx(-0.5)
    assert three.telling.count == 3


def test_two_finalists_tell_nothing() -> None:
    own = replace(finals(), finalists=finals().finalists[:2])
    assert own.compared_at is None
    assert own.telling is None
