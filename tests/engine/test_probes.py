"""Sensitivity: how the loss rises when one group alone is cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.measurements import Measurements
from evosearch.engine.parallel import OneByOne
from evosearch.engine.probes import measure_sensitivity
from evosearch.errors import EvosearchError
from evosearch.models.precision import Precision
from evosearch.run import evaluating
from evosearch.run.config import SearchConfig
from evosearch.run.evaluating import make_evaluator
from evosearch.space.mask import Mask
from evosearch.study.scores import ImageScores
from evosearch.study.scorestore import ScoreStore
from evosearch.training.distillation import FinetuneConfig
from evosearch.training.optimizers import Optimizer
from tests.toys import toy_knowledge, toy_space

SPACE = toy_space()
KNOWLEDGE = replace(toy_knowledge(), sensitivity={})


class Sized:
    """The loss is 1 and the share of channels that are gone, group after group."""

    images = 10

    def __init__(self, failing: Mask | None = None) -> None:
        self.measured: list[Mask] = []
        self.failing = failing

    def prepare(self, *, errors: bool) -> None:
        pass

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        if mask == self.failing:
            raise RuntimeError("no luck")
        self.measured.append(mask)
        loss = 1 + sum(1 - float(np.mean(bits)) for bits in mask.values())
        return ImageScores(losses=np.full(stop - start, loss), metrics=np.ones(stop - start))

    def compensated_error(self, mask: Mask) -> float:
        raise NotImplementedError


def test_curves_are_the_rise_of_the_loss_at_the_nearest_legal_widths(tmp_path: Path) -> None:
    evaluator = Sized()
    stages: list[str] = []
    measurements = Measurements(OneByOne(evaluator), ScoreStore(tmp_path))
    ratios = (0.25, 0.5)
    found = measure_sensitivity(SPACE, KNOWLEDGE, ratios, measurements, stages.append, images=10)
    for group in SPACE.groups:
        curve = found.sensitivity[group.name]
        legal = np.array(group.legal_widths())
        nearest = {int(legal[np.abs(legal - r * group.size).argmin()]) for r in ratios}
        assert curve.widths.tolist() == sorted({*nearest, group.size})
        np.testing.assert_allclose(curve.loss_increase, 1 - curve.widths / group.size)
    probes = sum(len(curve.widths) - 1 for curve in found.sensitivity.values())
    assert stages[-1] == f"sensitivity of each group: {probes} of {probes} probes"
    assert found.gram is KNOWLEDGE.gram


def test_probes_that_were_measured_before_are_not_measured_again(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop_late(stage: str) -> None:
        if stage.startswith("sensitivity of each group: 3 "):
            raise Enough

    def measure(evaluator: Sized, on_stage=lambda _: None):
        measurements = Measurements(OneByOne(evaluator), ScoreStore(tmp_path))
        return measure_sensitivity(
            SPACE, KNOWLEDGE, (0.25, 0.5), measurements, on_stage, images=10
        )

    first, second, third = Sized(), Sized(), Sized()
    with pytest.raises(Enough):
        measure(first, stop_late)
    found = measure(second)
    assert not {*first.measured} & {*second.measured}
    assert measure(third).sensitivity.keys() == found.sensitivity.keys()
    assert third.measured == []


def test_a_probe_that_fails_is_named(tmp_path: Path) -> None:
    failing = None
    evaluator = Sized()
    measurements = Measurements(OneByOne(evaluator), ScoreStore(tmp_path / "a"))
    measure_sensitivity(SPACE, KNOWLEDGE, (0.5,), measurements, lambda _: None, images=10)
    failing = evaluator.measured[1]
    measurements = Measurements(OneByOne(Sized(failing)), ScoreStore(tmp_path / "b"))
    cut = next(name for name, bits in failing.items() if not bits.all())
    with pytest.raises(EvosearchError, match=f"'?{cut}'? at .* channels: RuntimeError: no luck"):
        measure_sensitivity(SPACE, KNOWLEDGE, (0.5,), measurements, lambda _: None, images=10)


@pytest.mark.parametrize(
    ("precision", "asked", "expected"),
    [
        ("float32", "auto", "sgd"),
        ("bfloat16", "auto", "muon"),
        ("bfloat16", "sgd", "sgd"),
        ("float32", "muon", "muon"),
    ],
)
def test_a_recovery_is_the_same_on_any_machine(
    precision: Precision, asked: Optimizer, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What "auto" stands for was settled when the run began."""
    asked_for: list[FinetuneConfig] = []
    monkeypatch.setattr(
        evaluating, "distil_blindly", lambda *given, **_: asked_for.append(given[3])
    )
    monkeypatch.setattr(evaluating, "MaskEvaluator", lambda **given: given["recover"])
    subject: Any = MagicMock()
    subject.data.train.__len__.return_value = 9
    config = SearchConfig(
        device="cpu", evaluator=EvaluatorConfig(precision=precision, recovery_images=4)
    )
    recover: Any = make_evaluator(config, subject, FinetuneConfig(epochs=7, optimizer=asked))
    recover(MagicMock())
    (short,) = asked_for
    assert (short.epochs, short.precision, short.optimizer) == (1, precision, expected)
    assert len(subject.data.train.take.call_args.args[0]) == 4
