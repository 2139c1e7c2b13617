"""Paces: hand values, shapes, decisions from a record, and what is refused."""

from itertools import pairwise

import pytest

from evosearch.errors import InputError
from evosearch.training.pace import Pace, Record
from evosearch.training.pacing import LATEST, PACES, OneCycle, Steps, parse_pace
from evosearch.training.recorded_paces import Epi, Slack, similarity

EPOCHS = 10
TIMES = [i / 200 for i in range(201)]
BY_TIME = sorted(set(PACES) - {"slack"})
"""Paces that get all the way by the clock; epi at last."""


def pace(name: str, **settings: float) -> Pace:
    return parse_pace({"name": name, **settings}, EPOCHS)


def test_a_tolerated_drop_is_the_users_limit() -> None:
    assert parse_pace("slack", EPOCHS, drop=2.5) == Slack(drop=2.5)
    assert parse_pace("linear", EPOCHS, drop=2.5) == parse_pace("linear", EPOCHS)
    with pytest.raises(InputError, match="greater than 0, got 0"):
        parse_pace("slack", EPOCHS, drop=0)


@pytest.mark.parametrize("name", BY_TIME)
def test_a_pace_never_turns_back_and_gets_there(name: str) -> None:
    shares = [pace(name).share(t) for t in TIMES]
    assert all(earlier <= later for earlier, later in pairwise(shares))
    assert shares[0] >= 0
    assert shares[-1] == 1


@pytest.mark.parametrize("name", BY_TIME)
def test_from_its_end_on_one_percent_is_left_and_not_before(name: str) -> None:
    found = pace(name)
    assert found.share(found.ends) >= 0.99 - 1e-9
    assert found.ends == 0 or found.share(found.ends - 1e-6) < 0.99
    assert found.ends <= LATEST


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("start", {}, {0: 1}),
        ("at", {"epoch": 2}, {0.19: 0, 0.2: 1, 0.5: 1}),
        ("at", {"epoch": 0}, {0: 1}),
        ("linear", {"begin": 0.25}, {0.2: 0, 0.5: 0.5, 0.75: 1, 0.9: 1}),
        ("steps", {"end": 0.5}, {0.2: 0, 0.21: 1 / 3, 0.31: 2 / 3, 0.39: 2 / 3, 0.41: 1}),
        ("cubic", {"end": 0.5}, {0: 0, 0.125: 0.578125, 0.25: 0.875, 0.5: 1}),
        ("one_cycle", {}, {0: 0.0067, 0.25: 0.1824, 0.5: 0.8809, 0.75: 0.9961, 1: 1}),
        ("epi", {}, {0.49: 0, 0.5: 1}),
    ],
)
def test_hand_values(name: str, settings: dict[str, float], expected: dict[float, float]) -> None:
    found = pace(name, **settings)
    assert {t: found.share(t) for t in expected} == pytest.approx(expected, abs=5e-5)


def test_one_cycle_as_in_the_authors_library() -> None:
    expected = {0: 0.0025, 0.25: 0.0759, 0.5: 0.7313, 0.75: 0.9893, 1: 1}
    assert {t: OneCycle(b=6).share(t) for t in expected} == pytest.approx(expected, abs=5e-5)


def test_granet_ends_at_110_of_160_epochs() -> None:
    assert pace("cubic").share(110 / 160) == 1
    assert pace("cubic").share(109 / 160) < 1


def test_as_many_cuts_as_steps() -> None:
    for count in (1, 2, 5):
        shares = sorted({Steps(steps=count).share(t) for t in TIMES})
        assert shares == pytest.approx([i / count for i in range(count + 1)])


# The early pruning indicator


def test_similarity_of_widths() -> None:
    assert similarity((10, 10), (10, 10)) == 1
    # |10 - 6| / 16 = 0.25 and 0: their mean is 0.125.
    assert similarity((10, 10), (6, 10)) == pytest.approx(0.875)


def test_indicators_are_kept_as_they_were() -> None:
    found = Epi(r=2)
    record = Record(widths=[(10, 10), (6, 10), (10, 10)])
    assert found.indicators(record) == pytest.approx([(0.875 + 1) / 2])
    longer = Record(widths=[*record.widths, (2, 10), (2, 10)])
    assert found.indicators(longer)[:1] == found.indicators(record)


def test_a_settled_plan_is_cut_at_once_and_stays_cut() -> None:
    found = Epi(r=2, tau=0.9)
    restless = [(10, 10), (2, 20), (10, 10), (2, 20)]
    settled = [*restless, *[(8, 12)] * 7]
    firsts = [n for n in range(len(settled)) if found.share(0.1, Record(widths=settled[:n]))]
    # Indicators begin at epoch 2; five come before the first that may decide, at epoch 7.
    assert firsts == [8, 9, 10]
    assert found.share(0.1, Record(widths=[*settled, *restless])) == 1


def test_an_indicator_under_those_before_it_does_not_decide() -> None:
    found = Epi(r=1, tau=0.5)
    # Widths that move further at each epoch: high indicators, but falling ones.
    moving = [(100 + n * n,) for n in range(12)]
    assert min(found.indicators(Record(widths=moving))) > 0.5
    assert found.share(0.1, Record(widths=moving)) == 0
    assert found.share(0.1, Record(widths=moving[::-1])) == 1


def test_an_indicator_is_held_against_the_five_before_it() -> None:
    found, widths = Epi(r=1, tau=0.5), [10**9]
    for psi in (0.99, 0.9, 0.9, 0.9, 0.9, 0.95, 0.96):
        widths.append(round(widths[-1] * (2 - psi) / psi))
    record = Record(widths=[(width,) for width in widths])
    assert found.indicators(record) == pytest.approx([0.99, *[0.9] * 4, 0.95, 0.96])
    assert found.share(0.1, Record(widths=record.widths[:-1])) == 0  # 0.99 is among the five
    assert found.share(0.1, record) == 1


# The tolerated drop


def test_half_of_the_tolerance_left_cuts_a_quarter() -> None:
    found = Slack(drop=1.0)
    assert found.share(0.3, Record(accuracies=[0.90, 0.895])) == pytest.approx(0.25)
    assert found.share(0.3, Record(accuracies=[0.90, 0.89])) == 0
    assert found.share(0.3, Record(accuracies=[0.90, 0.80])) == 0
    assert found.share(0.3, Record(accuracies=[0.90])) == 0
    assert found.share(0.3) == 0


def test_steps_multiply_and_a_better_network_takes_one_of_full_size() -> None:
    found = Slack(drop=2.0, delta=0.5)
    record = Record(accuracies=[0.90, 0.95, 0.89, 0.85])
    assert found.tolerances(record) == [1, 0.5, 0]
    assert found.share(0.3, record) == pytest.approx(1 - 0.5 * 0.75)


def test_patience_ends_it() -> None:
    found = Slack(drop=1.0, patience=2)
    accuracies = [0.90, 0.89, 0.896, 0.88, 0.89]
    assert [found.is_over(Record(accuracies=accuracies[:n])) for n in range(6)] == [False] * 5 + [
        True
    ]
    assert not Slack(drop=1.0).is_over(Record(accuracies=accuracies))


# What a space file says


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("one_cycel", r"\[prune\] pace: unknown pace 'one_cycel': did you mean 'one_cycle'"),
        (3, r"\[prune\] pace = 3: expected a name, or a table such as"),
        ({"epoch": 2}, "expected a name, or a table such as"),
        ({"name": "at", "epohc": 2}, r"pace = 'at': unknown key 'epohc': did you mean 'epoch'"),
        ({"name": "at", "epochs": 2}, "unknown key 'epochs': did you mean 'epoch'"),
        ({"name": "at", "epoch": 11}, "epoch 11 of a training of 10 epochs"),
        ({"name": "at", "epoch": 9}, "'at' ends after 90% of training"),
        ({"name": "linear", "end": 1.0}, r"'linear' ends after 99% of training.* by 75%"),
        ({"name": "linear", "begin": 0.5, "end": 0.4}, "begin 0.5 is not before end 0.4"),
        ({"name": "one_cycle", "b": 9}, "'one_cycle' ends after 93% of training"),
        ({"name": "steps", "steps": 0}, "greater than or equal to 1, got 0"),
        ({"name": "slack", "drop": 1.0}, "'slack': unknown key 'drop'"),
        ({"name": "slack", "patience": 0}, "tolerated drop of accuracy.*--accuracy-drop 1.0"),
    ],
)
def test_what_makes_no_pace_is_refused_in_one_line(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        parse_pace(value, EPOCHS)
    assert "\n" not in str(refused.value)


def test_settings_arrive() -> None:
    assert parse_pace("epi", EPOCHS) == Epi()
    assert parse_pace({"name": "steps", "steps": 5}, EPOCHS) == Steps(steps=5)
