"""How far a stage is, and how long the rest takes."""

import pytest

from evosearch import stages
from evosearch.stages import Countdown, duration


def test_a_countdown_gives_the_rest_from_its_first_step_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([100.0, 102.0, 110.0, 130.0])
    monkeypatch.setattr(stages.time, "monotonic", lambda: next(clock))
    told: list[str] = []
    countdown = Countdown(told.append, "sensitivity", 6, "probes")
    for done in (1, 5, 6):
        countdown.done(done)
    assert told == [
        "sensitivity: 6 probes",
        "sensitivity: 1 of 6 probes, about 10 s left",
        "sensitivity: 5 of 6 probes, about 2 s left",
        "sensitivity: 6 of 6 probes",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99, "99 s"), (101, "2 min"), (5900, "98 min"), (9000, "2.5 h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
