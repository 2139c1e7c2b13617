"""The base network of a run, scored again: what may round otherwise, and what must not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evosearch.errors import InputError
from evosearch.run.reopening import _require_same_score
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Score
from evosearch.study.trial import Evaluation

WAS = Score(loss=0.25, loss_se=0.01, accuracy=0.9, accuracy_se=0.03, images=100)


def reopened(was: Score, now: Score) -> None:
    base = NamedNetwork(
        name="base",
        mask=Mask({"g": np.ones(3, dtype=bool)}),
        cost=Cost(macs=1, params=1, activations=1),
        evaluation=Evaluation(score=was, seconds=0),
    )
    _require_same_score(Path("run"), base, now)


@pytest.mark.parametrize("error", [0.01, 0.0])
def test_the_loss_may_round_otherwise(error: float, caplog: pytest.LogCaptureFixture) -> None:
    """Also where all images have the same loss: then its standard error is 0."""
    was = replace(WAS, loss_se=error)
    reopened(was, was)
    assert caplog.text == ""
    reopened(was, replace(was, loss=0.25 * (1 + 2**-22)))
    assert "the base network's loss was 0.25, is 0.25000006" in caplog.text


@pytest.mark.parametrize(
    ("error", "loss"),
    [(0.01, 0.25 + 0.0006), (0.01, 0.25 - 0.0006), (0.0, 0.250003), (0.0, 0.25 - 3e-6)],
)
def test_another_loss_is_refused_with_digits_that_show_it(error: float, loss: float) -> None:
    was = replace(WAS, loss_se=error)
    with pytest.raises(InputError, match=rf"\(loss 0\.25 and .*; is {loss:.9g} and "):
        reopened(was, replace(was, loss=loss))
