"""How rounds climb: who survives a rung, who is beaten, what is measured, what is remembered."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evosearch.engine.executor import Job, Measured
from evosearch.engine.ladder import Ladder
from evosearch.engine.measurements import Measurements
from evosearch.engine.parallel import OneByOne
from evosearch.errors import EvaluationError
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.strategies.base import RungPlan
from evosearch.study.scores import ImageScores
from evosearch.study.scorestore import ScoreStore
from evosearch.study.trial import Proposal, Rung, Trial, TrialState
from tests.toys import toy_space

SPACE = toy_space()
IMAGES = 40


def mask(seed: int, stem: int = 3) -> Mask:
    rng = np.random.default_rng(seed)
    widths = {"stem": stem, "stream": 4, "inner": 6}
    return Mask({g.name: rng.permutation(g.size) < widths[g.name] for g in SPACE.groups})


class Table:
    """Knows the loss of every image and the compensated error of every mask, and counts."""

    images = IMAGES

    def __init__(self, losses: dict[Mask, float | None], errors: dict[Mask, float]) -> None:
        self.losses, self.errors = losses, errors
        self.scored: list[tuple[Mask, int, int]] = []
        self.noise = np.random.default_rng(0).normal(size=IMAGES)

    def prepare(self, *, errors: bool) -> None:
        pass

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        self.scored.append((mask, start, stop))
        loss = self.losses[mask]
        if loss is None:
            raise EvaluationError("the loss is not finite")
        values = loss + self.noise
        return ImageScores(losses=values, metrics=np.ones(IMAGES)).between(start, stop)

    def compensated_error(self, mask: Mask) -> float:
        return self.errors[mask]


def climb(
    table: Table,
    folder: Path,
    masks: Sequence[Mask],
    plans: Sequence[RungPlan],
    *,
    started: Sequence[Trial] = (),
    front: Sequence[Trial] = (),
    known: dict[Mask, Trial] | None = None,
) -> list[Trial]:
    ladder = Ladder(
        space=SPACE,
        plans=plans,
        size=RESOURCES["macs"],
        measurements=Measurements(OneByOne(table), ScoreStore(folder)),
    )
    return list(
        ladder.climb(
            [Proposal(mask=m, two_step=float(i)) for i, m in enumerate(masks)],
            first=10,
            generation=2,
            started=started,
            front=front,
            known=known or {},
            asked_in=0.5,
        )
    )


MASKS = [mask(seed) for seed in range(4)]


def worth(values: list[float | None]) -> dict[Mask, Any]:
    return dict(zip(MASKS, values, strict=True))


COMPENSATED = RungPlan(rung=Rung.COMPENSATED, survivors=2)
PARTIAL = RungPlan(rung=Rung.PARTIAL, survivors=2, share=0.25)


def test_the_best_of_each_rung_climb_and_only_the_top_is_complete(tmp_path: Path) -> None:
    # By the compensated error the last two go; by the loss the first would have gone.
    table = Table(
        worth([3.0, 1.0, 0.5, 0.1]),
        worth([0.1, 0.2, 0.3, 0.4]),
    )
    trials = climb(table, tmp_path, MASKS, [COMPENSATED])
    assert [t.number for t in trials] == [10, 11, 12, 13]
    assert {t.generation for t in trials} == {2}
    states = [TrialState.COMPLETE] * 2 + [TrialState.PRUNED] * 2
    assert [t.state for t in trials] == states
    assert [s.rung for s in trials[0].steps] == [Rung.TWO_STEP, Rung.COMPENSATED, Rung.FULL]
    assert [s.score for s in trials[3].steps] == [3.0, 0.4]
    assert trials[3].evaluation is None
    assert trials[0].evaluation is not None
    assert trials[0].evaluation.score.loss == pytest.approx(3.0 + table.noise.mean())
    assert trials[0].evaluation.score.images == IMAGES
    assert table.scored == [(MASKS[0], 0, 40), (MASKS[1], 0, 40)]


def test_a_higher_rung_scores_only_the_images_that_are_missing(tmp_path: Path) -> None:
    table = Table(worth([3.0, 1.0, 0.5, 0.1]), {})
    trials = climb(table, tmp_path, MASKS, [PARTIAL])
    assert [t.state.name for t in trials] == ["PRUNED", "PRUNED", "COMPLETE", "COMPLETE"]
    partial = trials[0].evaluation
    assert partial is not None
    assert (partial.rung, partial.score.images) == (Rung.PARTIAL, 10)
    assert partial.score.loss == pytest.approx(3.0 + table.noise[:10].mean())
    assert table.scored[4:] == [(MASKS[2], 10, 40), (MASKS[3], 10, 40)]
    assert trials[2].evaluation is not None
    assert trials[2].evaluation.score.loss == pytest.approx(0.5 + table.noise.mean())


def test_survivors_cover_sizes_not_only_the_least_loss(tmp_path: Path) -> None:
    small, large = mask(9, stem=1), [mask(seed, stem=6) for seed in (10, 11)]
    table = Table(dict(zip([small, *large], [2.0, 0.1, 0.2], strict=True)), {})
    trials = climb(table, tmp_path, [small, *large], [PARTIAL])
    assert [t.is_complete for t in trials] == [True, True, False]


def test_who_is_clearly_worse_than_an_incumbent_no_larger_stops_early(tmp_path: Path) -> None:
    incumbent, twin = mask(20), mask(21)
    table = Table({incumbent: 1.0, twin: 1.0, **dict.fromkeys(MASKS, 1.001)}, {})
    (champion,) = climb(table, tmp_path, [incumbent], [])
    # All images agree that the difference is 0.001: paired, that is certain.
    trials = climb(table, tmp_path, [MASKS[0], twin], [PARTIAL], front=[champion])
    assert [t.is_complete for t in trials] == [False, True]
    # A larger incumbent is no rival.
    smaller = mask(22, stem=1)
    table.losses[smaller] = 5.0
    (trial,) = climb(table, tmp_path, [smaller], [PARTIAL], front=[champion])
    assert trial.is_complete


def test_failures_on_any_rung_become_trials_with_a_reason(tmp_path: Path) -> None:
    losses = worth([None, 1.0, 0.5, 0.1])
    errors = worth([0.1, 0.2, 0.3, 0.4])
    trials = climb(Table(losses, errors), tmp_path, MASKS, [COMPENSATED])
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE", "PRUNED", "PRUNED"]
    assert trials[0].error == "EvaluationError: the loss is not finite"
    assert trials[0].evaluation is None
    del errors[MASKS[1]]
    trials = climb(Table(losses, errors), tmp_path / "other", MASKS, [COMPENSATED])
    assert trials[1].state is TrialState.FAIL
    assert str(trials[1].error).startswith("KeyError")


def test_who_fails_on_a_rung_climbs_no_further_however_good_it_looked(tmp_path: Path) -> None:
    table = Table(worth([0.1, 1.0, 0.5, 0.2]), worth([0.1, 0.2, 0.3, 0.4]))
    del table.errors[MASKS[0]]  # which has the least two-step error, and would have the least loss
    plan = RungPlan(rung=Rung.COMPENSATED, survivors=3)
    trials = climb(table, tmp_path, MASKS, [plan])
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert MASKS[0] not in {mask for mask, _, _ in table.scored}


def test_a_cut_round_is_climbed_to_the_same_end_without_measuring_twice(tmp_path: Path) -> None:
    losses = worth([3.0, 1.0, 0.5, 0.1])
    whole = climb(Table(losses, {}), tmp_path, MASKS, [PARTIAL])
    for kept in range(len(whole) + 1):
        again = Table(losses, {})
        rest = climb(again, tmp_path, MASKS, [PARTIAL], started=whole[:kept])
        assert again.scored == []
        assert [(t.number, t.mask, t.state) for t in rest] == [
            (t.number, t.mask, t.state) for t in whole[kept:]
        ]
        for old, new in zip(whole[kept:], rest, strict=True):
            assert old.evaluation is not None
            assert new.evaluation is not None
            assert (old.evaluation.score.loss, old.evaluation.score.images) == (
                new.evaluation.score.loss,
                new.evaluation.score.images,
            )


def test_repeats_of_the_round_and_of_the_past_are_not_measured(tmp_path: Path) -> None:
    table = Table(worth([3.0, 1.0, 0.5, 0.1]), {})
    first = climb(table, tmp_path, MASKS[:1], [])
    masks = [MASKS[0], MASKS[1], MASKS[1]]
    trials = climb(table, tmp_path, masks, [], known={MASKS[0]: first[0]})
    assert [t.duplicate_of for t in trials] == [10, None, 11]
    assert trials[2].evaluation == trials[1].evaluation
    assert len(table.scored) == 2


def test_a_checkpoint_can_end_a_climb_before_any_measurement(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Enough

    table = Table(dict.fromkeys(MASKS, 1.0), {})
    ladder = Ladder(
        space=SPACE,
        plans=(),
        size=RESOURCES["macs"],
        measurements=Measurements(OneByOne(table), ScoreStore(tmp_path), checkpoint),
    )
    found: list[Trial] = []

    def go() -> Iterator[Trial]:
        return ladder.climb(
            [Proposal(mask=m) for m in MASKS],
            first=0,
            generation=0,
            started=(),
            front=(),
            known={},
            asked_in=0.0,
        )

    with pytest.raises(Enough):
        found.extend(go())
    assert len(table.scored) == 2


def test_a_damaged_score_file_counts_as_none(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    scores = ImageScores(losses=np.array([0.1, 2.0]), metrics=np.array([1.0, 0.0]))
    store.put(MASKS[0], scores)
    back = store.get(MASKS[0])
    assert back is not None
    np.testing.assert_array_equal(back.losses, scores.losses)
    np.testing.assert_array_equal(back.metrics, scores.metrics)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert store.get(MASKS[0]) is None
    path.write_bytes(b"")
    assert store.get(MASKS[0]) is None


def test_tasks_name_what_is_measured() -> None:
    table = Table({MASKS[0]: 1.0}, {MASKS[0]: 0.25})
    results = list(
        OneByOne(table).measure([Job(mask=MASKS[0]), Job(mask=MASKS[0], images=range(5, 8))])
    )
    assert isinstance(results[0], Measured)
    assert results[0].error == 0.25
    assert results[1].scores is not None
    np.testing.assert_allclose(results[1].scores.losses, 1.0 + table.noise[5:8])
