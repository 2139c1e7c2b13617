"""Candidates that go wrong: FAIL trials with reasons, and a search that knows when to give up."""

from pathlib import Path

import numpy as np
import pytest

from evosearch.engine.executor import Job, carried_out
from evosearch.engine.loop import HOPELESS
from evosearch.errors import EvosearchError
from evosearch.space.mask import Mask
from evosearch.study.scores import ImageScores
from evosearch.study.study import Study
from evosearch.study.trial import TrialState
from tests.run.test_session import SPACE, go
from tests.toys import ToyEvaluator, comparable


class Harmed(ToyEvaluator):
    """Gives no number, or runs out of memory in one of its ways, on some masks."""

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        scores = super().image_scores(mask, start, stop)
        kind = int(mask.key, 16) % 11
        if kind == 0:
            return ImageScores(losses=scores.losses * np.nan, metrics=scores.metrics)
        if kind == 1:
            return ImageScores(losses=scores.losses / 0.0, metrics=scores.metrics)
        if kind == 2:
            raise MemoryError("cannot allocate 80 GiB\nmore lines")
        if kind == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return scores


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_harmed_candidates_fail_with_their_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    _, study = go(tmp_path / "run", "random", 120, evaluator=Harmed(failing=False))
    failed = [t for t in study.trials if t.state is TrialState.FAIL]
    assert {t.error for t in failed} == {
        "EvaluationError: the loss is not finite",
        "MemoryError: cannot allocate 80 GiB",
        "RuntimeError: DefaultCPUAllocator: can't allocate memory",
    }
    assert all(t.evaluation is None for t in failed)
    assert len(study.trials) == 120
    assert np.isfinite(
        [t.evaluation.score.loss for t in study.front().members if t.evaluation]
    ).all()


def test_a_compensated_error_that_is_no_number_is_a_failure() -> None:
    class NoNumber(ToyEvaluator):
        def compensated_error(self, mask: Mask) -> float:
            return float("nan")

    measured = carried_out(NoNumber(), Job(mask=SPACE.full_mask()))
    assert measured.error is None
    assert measured.failure == "EvaluationError: the compensated error is nan"


class Hopeless(ToyEvaluator):
    """Fails from some evaluation on, until it is mended."""

    def __init__(self, good: int) -> None:
        super().__init__(failing=False)
        self.good = good

    def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
        if len(self.asked) >= self.good:
            self.asked.append(mask)
            raise RuntimeError("the device is gone")
        return super().image_scores(mask, start, stop)


@pytest.mark.parametrize("strategy", ["random", "rates"])
def test_a_search_whose_candidates_all_fail_stops_and_says_why(
    strategy: str, tmp_path: Path
) -> None:
    evaluator = Hopeless(good=7)
    reason = f"the last {HOPELESS} candidates that were measured all failed, .* device is gone"
    with pytest.raises(EvosearchError, match=reason) as caught:
        go(tmp_path / "run", strategy, 500, evaluator=evaluator)
    assert "\n" not in str(caught.value)
    study = Study.open(tmp_path / "run")
    assert sum(t.error is not None and t.duplicate_of is None for t in study.trials) == HOPELESS
    # Going on tries one more; with the device back, it goes on as if nothing had been.
    with pytest.raises(EvosearchError, match=reason):
        go(tmp_path / "run", strategy, 500, evaluator=Hopeless(good=0))
    assert len(Study.open(tmp_path / "run").trials) > len(study.trials)
    _, mended = go(tmp_path / "run", strategy, 70, evaluator=ToyEvaluator(failing=False))
    assert len(mended.trials) == 70
    assert comparable(mended.trials)[: len(study.trials)] == comparable(study.trials)


def test_failures_among_others_do_not_end_a_search(tmp_path: Path) -> None:
    class Often(ToyEvaluator):
        def image_scores(self, mask: Mask, start: int, stop: int) -> ImageScores:
            self.asked.append(mask)
            if len(self.asked) % HOPELESS:
                raise RuntimeError("no")
            return ToyEvaluator(failing=False).image_scores(mask, start, stop)

    _, study = go(tmp_path / "run", "random", 150, evaluator=Often())
    assert len(study.trials) == 150
