from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from evosearch.aims.base import Metrics
from evosearch.aims.latency import LatencyAim
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyModel
from evosearch.latency.profile import profile
from evosearch.space.budget import Bound, Budget
from evosearch.space.mask import Mask
from evosearch.study.certificate import add_claim, certificate_of
from evosearch.study.latency_certificate import LatencyCertificate
from evosearch.study.networks import NamedNetwork
from evosearch.study.records import Header
from evosearch.study.scores import Score
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing
from evosearch.study.trial import Evaluation, Trial, TrialState
from tests.latency.fakes import FakeStopwatch, fake_meter
from tests.toys import IDENTITY


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))


@dataclass(frozen=True)
class Timer:
    """Times in this process, and confirms nothing."""

    meter: Meter
    conditions: Conditions
    confirmation_images: int = 0

    def time(self, masks: Sequence[Mask]) -> list[Timing]:
        return [self.meter.time(mask) for mask in masks]

    def confirm(self, mask: Mask) -> tuple[Metrics, Metrics]:
        raise NotImplementedError


def conclude(study: Study, meter: Meter, model: LatencyModel) -> LatencyCertificate:
    return LatencyAim().conclude(study, Timer(meter, model.conditions), ())


def study_of(folder: Path, meter: Meter, model: LatencyModel, share: float) -> Study:
    """Returns a study of five networks: the larger, the better."""
    space = model.timed(meter.discovery.space)
    base = replace(space.base_cost, latency=model.base_picoseconds)
    limit = int(share * model.base_picoseconds)
    budget = replace(Budget.exactly(latency=limit), relative_latency=True)

    def evaluation(loss: float) -> Evaluation:
        return Evaluation(
            score=Score(loss=loss, loss_se=0.1, accuracy=0.5, accuracy_se=0.1, images=9), seconds=0
        )

    full = space.full_mask()
    header = Header(
        space_digest=space.digest,
        config_digest="",
        sizes=space.sizes,
        least_widths=dict(zip(space.sizes, space.least_widths.tolist(), strict=True)),
        budget=budget,
        base_cost=base,
        strategy="rates",
        seed=0,
        identity=IDENTITY,
        references=(NamedNetwork(name="base", mask=full, cost=base, evaluation=evaluation(0.1)),),
    )
    study = Study.create(folder, header)
    for number, width in enumerate((6, 14, 10, 12, 16)):
        mask = Mask({**full, "first": np.arange(16) < width})
        study.append(
            Trial(
                number=number,
                generation=0,
                mask=mask,
                genome={},
                cost=space.cost(mask),
                state=TrialState.COMPLETE,
                evaluation=evaluation(1 / width),
            )
        )
    return study


def share_of(model: LatencyModel, meter: Meter, width: int) -> float:
    space = model.timed(meter.discovery.space)
    mask = Mask({**space.full_mask(), "first": np.arange(16) < width})
    return space.cost(mask).latency / model.base_picoseconds


def test_the_best_trial_that_fits_is_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch())
    model = profile(meter)
    study = study_of(tmp_path, meter, model, share_of(model, meter, 12) + 1e-3)
    certificate = conclude(study, meter, model)
    assert certificate.certified
    assert certificate.winner is not None
    assert certificate.winner.trial == 3
    assert str(certificate).startswith("latency budget of ")
    add_claim(tmp_path, certificate)
    assert certificate_of(tmp_path, study.requested) == certificate


def test_what_is_slower_than_predicted_is_not_certified_and_a_smaller_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopwatch = FakeStopwatch()
    meter = fake_meter(monkeypatch, stopwatch)
    model = profile(meter)
    study = study_of(tmp_path, meter, model, share_of(model, meter, 12) + 1e-3)
    stopwatch.base, stopwatch.factor = 0.99e-12 * model.base_picoseconds, 1.06
    certificate = conclude(study, meter, model)
    assert [check.trial for check in certificate.attempts] == [3, 2]
    assert certificate.certified
    assert "after 1 that did not" in str(certificate)


def test_noise_over_the_budget_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = FakeStopwatch()
    meter = fake_meter(monkeypatch, stopwatch)
    model = profile(meter)
    study = study_of(tmp_path, meter, model, share_of(model, meter, 6) + 1e-3)
    stopwatch.noise = 0.5
    certificate = conclude(study, meter, model)
    assert not certificate.certified
    assert "the budget is finer than the noise" in str(certificate)


def test_too_slow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = FakeStopwatch()
    meter = fake_meter(monkeypatch, stopwatch)
    model = profile(meter)
    study = study_of(tmp_path, meter, model, share_of(model, meter, 6) + 1e-3)
    stopwatch.base, stopwatch.factor = 0.99e-12 * model.base_picoseconds, 1.2
    assert "the upper end of every interval" in str(conclude(study, meter, model))


def test_nothing_to_certify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch())
    model = profile(meter)
    certificate = conclude(study_of(tmp_path, meter, model, 1e-6), meter, model)
    assert "no trial is predicted to keep it" in str(certificate)


def test_an_absolute_budget_is_judged_on_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch())
    model = profile(meter)
    study = study_of(tmp_path, meter, model, 1.0)
    limit = int(share_of(model, meter, 12) * model.base_picoseconds * 1.001)
    budget = Budget.of(latency=Bound(low=limit, high=limit))
    study.begin_segment(budget, budget)
    certificate = conclude(study, meter, model)
    assert certificate.winner is not None
    assert certificate.winner.timing.high <= 1e-12 * limit
    assert " us certified: trial 3" in str(certificate)


def test_checks_are_of_the_best_and_are_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = fake_meter(monkeypatch, FakeStopwatch())
    model = profile(meter)
    study = study_of(tmp_path, meter, model, 0.99)
    checks = LatencyAim().check(study, Timer(meter, model.conditions))
    assert [check.trial for check in checks] == [1, 3, 2]
    study.begin_segment(study.requested, study.requested, checks)
    assert Study.open(tmp_path).segments[-1].checks == checks
