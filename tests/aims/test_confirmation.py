"""An accuracy drop is certified on images that the trials were not selected on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest

from evosearch.aims.accuracy import AccuracyAim
from evosearch.aims.base import Metrics
from evosearch.run.planning import pick_plan
from evosearch.space.budget import Bound, Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.study.accuracy_certificate import (
    AccuracyCertificate,
    ConfirmedNetwork,
    claims_beside,
    limit_of,
)
from evosearch.study.certificate import (
    add_claim,
    certificate_of,
    load_certificates,
    load_claims,
)
from evosearch.study.networks import NamedNetwork
from evosearch.study.records import Header
from evosearch.study.scores import Score
from evosearch.study.study import Study
from evosearch.study.timing import Conditions, Timing
from evosearch.study.trial import Evaluation, Trial, TrialState
from tests.study.enumeration import bound_of, fewer_lost, gained_numbers, least_lost
from tests.toys import IDENTITY

BASE = Cost(macs=1000, params=100, activations=10)
BASE_ACCURACY = 0.98
CHANNELS = 20


def budget_of(drop: float, high: int = 1000) -> Budget:
    bound = Bound(low=high, high=high)
    return Budget.of(macs=bound, least_accuracy=BASE_ACCURACY - drop)


def evaluation(loss: float, accuracy: float = BASE_ACCURACY) -> Evaluation:
    score = Score(loss=loss, loss_se=0.1, accuracy=accuracy, accuracy_se=0.01, images=100)
    return Evaluation(score=score, seconds=0)


def mask_of(number: int) -> Mask:
    return Mask({"g": np.arange(CHANNELS) <= number})


def study_of(
    folder: Path,
    sizes: Sequence[int],
    *,
    drop: float = 0.01,
    losses: Mapping[int, float] | None = None,
) -> Study:
    """Returns a study of networks of these sizes: the larger, the less its loss, but for some."""
    full = mask_of(CHANNELS)
    budget = budget_of(drop)
    header = Header(
        space_digest="",
        config_digest="",
        sizes={"g": CHANNELS},
        least_widths={"g": 1},
        budget=budget,
        base_cost=BASE,
        strategy="rates",
        identity=IDENTITY,
        seed=0,
        references=(NamedNetwork(name="base", mask=full, cost=BASE, evaluation=evaluation(0.1)),),
    )
    study = Study.create(folder, header)
    study.begin_segment(budget, budget)
    for number, size in enumerate(sizes):
        study.append(
            Trial(
                number=number,
                generation=number,
                mask=mask_of(number),
                genome={},
                cost=Cost(macs=size, params=1, activations=1),
                state=TrialState.COMPLETE,
                evaluation=evaluation((losses or {}).get(number, 1 / size)),
            )
        )
    return study


@dataclass
class Measurer:
    """Confirms from a table: trial -> how many of the images it loses and gains."""

    confirmation_images: int
    outcomes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    conditions: Conditions | None = None

    def time(self, masks: Sequence[Mask]) -> list[Timing]:
        raise NotImplementedError

    def confirm(self, mask: Mask) -> tuple[Metrics, Metrics]:
        number = int(mask["g"].sum()) - 1
        self.asked.append(number)
        lost, gained = self.outcomes.get(number, (0, 0))
        before, after = np.ones(self.confirmation_images), np.ones(self.confirmation_images)
        after[:lost] = 0
        before[lost : lost + gained] = 0
        return before, after


@dataclass
class Timer(Measurer):
    """Also times: every network takes the same share of the base network's time."""

    ratio: float = 0.5
    timed: int = 0
    conditions: Conditions | None = field(
        default_factory=lambda: Conditions(
            device="abacus", runtime="eager", batch=1, threads=1, versions={}
        )
    )

    def time(self, masks: Sequence[Mask]) -> list[Timing]:
        self.timed += len(masks)
        own = {"ratio": self.ratio, "ratio_low": self.ratio, "ratio_high": self.ratio}
        seconds = dict.fromkeys(("seconds", "low", "high", "base_seconds"), 1e-9)
        return [Timing(**seconds, **own, rounds=15) for _ in masks]


def conclude(
    study: Study, measurer: Measurer, earlier: Sequence[AccuracyCertificate] = ()
) -> AccuracyCertificate:
    return AccuracyAim().conclude(study, measurer, earlier)


def test_the_smallest_before_the_first_that_fails_is_certified(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100, 200, 300, 400, 500])
    # On 1,000 images a drop of 1.0 points allows a net loss of 4 or 5.
    measurer = Measurer(1000, {4: (1, 1), 3: (3, 2), 2: (9, 0)})
    certificate = conclude(study, measurer)
    assert measurer.asked == [4, 3, 2]  # trial 1 may be as good as it likes
    assert certificate.certified
    assert (certificate.trial, certificate.claim) == (3, pytest.approx(0.01))
    assert str(certificate) == (
        f"accuracy drop of 1.00 points certified: trial 3 loses at most"
        f" {100 * certificate.attempts[1].drop.bound:.2f} points: of 1000 confirmation images it"
        " is wrong on 3 that the base network gets right, and right on 2 that it gets wrong, after"
        " 1 larger that keep it; trial 2, the next, does not (95% confidence over all that was"
        " tried)"
    )


def test_where_the_largest_fails_its_own_bound_is_the_claim(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100, 200, 300])
    measurer = Measurer(300, {2: (3, 0)})
    certificate = conclude(study, measurer)
    assert measurer.asked == [2]
    assert not certificate.certified
    assert certificate.trial == 2
    assert certificate.claim == certificate.attempts[0].drop.bound > 0.02
    assert "not certified: trial 2 loses at most" in str(certificate)


def test_one_of_every_size_is_tried_that_of_least_loss(tmp_path: Path) -> None:
    measurer = Measurer(1000)
    sizes = [500, 451, 425, 424, 406, 361, 360, 100]
    study = study_of(tmp_path, sizes, losses={2: 0.001, 5: 0.0005, 6: 1e-4})
    assert conclude(study, measurer).certified
    # 500 to 425 are one size, and 424 to 360.4 another; trial 2 beats all of them but 5 and 6.
    assert measurer.asked == [2, 5, 6, 7]
    # Trials that the front leaves out as dominated may be the surest.
    assert [trial.number for trial in study.front().members] == [7, 6]


def test_what_the_search_split_rules_out_is_not_tried(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100, 200])
    worse = replace(study.trials[0], number=2, mask=mask_of(2))
    low = evaluation(0.01, accuracy=BASE_ACCURACY - 0.02)
    study.append(replace(worse, cost=Cost(macs=50, params=1, activations=1), evaluation=low))
    measurer = Measurer(1000)
    assert conclude(study, measurer).trial == 0
    assert measurer.asked == [1, 0]


def test_too_few_images_say_what_they_certify(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100, 200], drop=0.005)
    certificate = conclude(study, Measurer(300))
    assert not certificate.certified
    assert certificate.trial == 0
    assert certificate.claim == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-3)
    assert (
        "accuracy drop of 0.50 points not certified: 300 confirmation images certify 0.99 points"
        " at best, which trial 0 keeps, after 1 larger that keep it; it takes 598 or more"
    ) in str(certificate)


def test_without_confirmation_images_nothing_is_claimed(tmp_path: Path) -> None:
    measurer = Measurer(0)
    certificate = conclude(study_of(tmp_path, [100, 200]), measurer)
    assert measurer.asked == []
    assert (certificate.certified, certificate.trial, certificate.claim) == (False, None, None)
    assert (
        str(certificate) == "accuracy drop of 1.00 points not certified: there are no confirmation"
        " images; it takes 299 or more, by [data] confirmation in a new run"
    )


def test_nothing_feasible(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100])
    budget = budget_of(0.01, high=50)
    study.begin_segment(budget, budget)
    assert "no trial keeps it on the search split" in str(conclude(study, Measurer(300)))


def test_the_latency_of_the_winner_is_timed_once_and_claimed_with_the_drop(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = study_of(tmp_path / "plain", [900, 500, 300], drop=0.02)
    budget = Budget.of(
        latency=Bound(low=700, high=700), least_accuracy=0.96, relative_latency=True
    )
    base = replace(BASE, latency=1000)
    study = Study.create(tmp_path, replace(plain.header, budget=budget, base_cost=base))
    for trial in plain.trials:
        study.append(replace(trial, cost=replace(trial.cost, latency=trial.cost.macs // 2)))
    measurer = Timer(400, {2: (100, 0)})
    certificate = AccuracyAim().conclude(study, measurer, ())
    assert measurer.asked == [0, 1, 2]
    assert certificate.trial == 1
    assert certificate.latency is not None
    assert certificate.latency.trial == 1
    assert certificate.certified
    assert measurer.timed == 3  # in as many processes
    assert "; latency budget of 70.0% of the base network's certified: trial 1" in str(certificate)
    add_claim(tmp_path, certificate)
    assert load_certificates(tmp_path) == (certificate,)
    assert AccuracyAim().conclude(study, measurer, [certificate]) == certificate
    assert measurer.timed == 3
    slow = AccuracyAim().conclude(study, Timer(400, {2: (100, 0)}, ratio=0.8), ())
    assert slow.trial == 1
    assert not slow.certified
    assert "accuracy drop of 2.00 points certified" in str(slow)
    assert "latency budget of 70.0% of the base network's not certified" in str(slow)


def test_claims_on_the_same_images_are_counted(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100, 200])
    first = conclude(study, Measurer(300))
    assert conclude(study, Measurer(300), [first]) == first  # the same trials: nothing new
    second = conclude(study, Measurer(300, {1: (2, 0)}), [first])
    assert second.earlier == 1
    assert "has made 2 such claims on these images, which hold together with 90%" in str(second)
    assert conclude(study, Measurer(300), [first, second, second]).earlier == 1


def test_networks_trained_after_the_search_are_claims_too(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100, 200])
    drop = conclude(study, Measurer(300)).attempts[0].drop
    network = ConfirmedNetwork(
        name="plan, distilled", weights="a", config={"epochs": 1}, drop=drop, earlier=0
    )
    assert str(network) == f"{drop} (95% confidence)"
    other = replace(network, weights="b", earlier=2)
    assert str(other).endswith(
        "(95% confidence; the run has made 3 such claims on these images, which hold together with"
        " 85%)"
    )
    for claim in (network, other, replace(network, name="another name")):
        add_claim(tmp_path, claim)
    claims = load_claims(tmp_path)
    assert claims[:2] == (network, other)
    certificate = AccuracyAim().conclude(study, Measurer(300), claims)
    assert certificate.earlier == 2
    assert "has made 3 such claims on these images" in str(certificate)
    first = replace(certificate, earlier=0)
    assert AccuracyAim().conclude(study, Measurer(300), [first, network, other]) == first
    add_claim(tmp_path, certificate)
    assert load_certificates(tmp_path) == (certificate,)
    assert claims_beside(load_claims(tmp_path), "a") == 2  # the sequence, and the other network


def test_certificates_are_kept_by_budget_and_name_the_pick(tmp_path: Path) -> None:
    study = study_of(tmp_path, [100, 200, 300])
    assert pick_plan(tmp_path, study, None, None).trial == 0  # by its search accuracy alone
    first = conclude(study, Measurer(1000, {1: (30, 0)}))
    add_claim(tmp_path, first)
    assert load_certificates(tmp_path) == (first,)
    assert certificate_of(tmp_path, study.requested) == first
    assert pick_plan(tmp_path, study, None, None).trial == 2
    assert pick_plan(tmp_path, study, "smallest", None).trial == 0
    other = budget_of(0.02)
    study.begin_segment(other, other)
    assert certificate_of(tmp_path, other) is None
    assert pick_plan(tmp_path, study, None, None).trial == 0
    second = conclude(study, Measurer(1000), [first])
    add_claim(tmp_path, second)
    assert load_certificates(tmp_path) == (first, second)
    assert certificate_of(tmp_path, first.budget) == first


RECOMMENDED, GAINED = 300, 0.002
"""Images that the digits' space sets aside, and the true share of those that are gained."""


def fates(drop: float, limit: float) -> list[tuple[float, tuple[int, int]]]:
    """Returns what may become of a network of a true drop, each with its exact probability.

    It keeps the limit; its bound is above the limit and yet under the drop; or its bound holds.
    Each has an outcome that stands for it: how many images are lost, and how many gained.
    """
    loss, found = drop + GAINED, []
    for gained, chance in gained_numbers(RECOMMENDED, GAINED):
        kept = least_lost(RECOMMENDED, gained, limit)
        sound = max(kept, least_lost(RECOMMENDED, gained, drop * (1 - 1e-9)))
        p, q = (fewer_lost(RECOMMENDED, gained, n, loss, GAINED) for n in (kept, sound))
        shares = {(kept - 1, gained): p, (kept, gained): q - p, (sound, gained): 1 - q}
        found += [(chance * share, outcome) for outcome, share in shares.items() if share > 0]
    return found


def merged(
    found: list[tuple[float, tuple[int, int]]], drop: float, limit: float
) -> list[tuple[float, tuple[int, int]]]:
    """Returns one outcome for each fate, with the sum of their probabilities."""
    sums: dict[tuple[bool, bool], tuple[float, tuple[int, int]]] = {}
    for chance, outcome in found:
        bound = bound_of(RECOMMENDED, *outcome)
        fate = bound <= limit, bound < drop * (1 - 1e-9)
        sums[fate] = (sums.get(fate, (0.0, outcome))[0] + chance, outcome)
    return list(sums.values())


@pytest.mark.parametrize(
    ("drops", "least"),
    [
        ((0.002, 0.008, 0.0101, 0.02), 0.0005),  # ever worse: the third must not be claimed
        ((0.0101, 0.0101, 0.0101, 0.0101), 0.03),  # all a little too bad: no later one adds error
        ((0.0, 0.012, 0.002, 0.003), 0.003),  # the second alone is too bad
    ],
)
def test_claims_are_wrong_in_at_most_a_twentieth(
    tmp_path: Path, drops: tuple[float, ...], least: float
) -> None:
    """Over the whole sequence, exactly: `drops` are the true ones, largest network first."""
    study = study_of(tmp_path, [400, 300, 200, 100])
    limit = limit_of(0.01, RECOMMENDED)
    assert limit == 0.01
    wrong, total = 0.0, 0.0
    for combination in product(*(merged(fates(d, limit), d, limit) for d in drops)):
        probability = prod(chance for chance, _ in combination)
        outcomes = {number: outcome for number, (_, outcome) in enumerate(combination)}
        certificate = conclude(study, Measurer(RECOMMENDED, outcomes))
        assert certificate.trial is not None
        assert certificate.claim is not None
        total += probability
        wrong += probability * (drops[certificate.trial] * (1 - 1e-9) > certificate.claim)
    assert total == pytest.approx(1, abs=1e-5)
    assert least < wrong <= 0.05
