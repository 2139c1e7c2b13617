"""Baselines beside a search: begun at its budget, and equal wherever they were cut."""

from collections.abc import Callable
from pathlib import Path

from evosearch.engine.loop import Limits, Outcome, search
from evosearch.engine.parallel import OneByOne
from evosearch.run.baselines import baseline_studies, search_baselines
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from tests.run.test_segments import dropping, go
from tests.run.test_session import SPACE, builder
from tests.toys import ToyEvaluator, comparable


def finished(folder: Path) -> Study:
    """Returns the study of a run that may lose 20 points of accuracy, with 24 trials."""
    dropping(folder, 20.0)
    return go(folder, "rates", 24)


def search_beside(
    folder: Path, study: Study, should_stop: Callable[[], bool] = lambda: False
) -> Outcome:
    """Searches with the baselines of a run, each for as many trials as it has evaluations."""

    def search_with(strategy: str, baseline: Study) -> Outcome:
        return search(
            study=baseline,
            space=SPACE,
            build=builder(strategy),
            executor=OneByOne(ToyEvaluator()),
            store=ScoreStore(folder / "scores"),
            limits=Limits(trials=study.full_evaluations),
            should_stop=should_stop,
        )

    return search_baselines(folder, study, SPACE.smallest_cost, search_with)


def test_baselines_of_an_accuracy_cut_anywhere_resume_to_the_same(tmp_path: Path) -> None:
    whole, parts = finished(tmp_path / "whole"), finished(tmp_path / "parts")
    assert search_beside(tmp_path / "whole", whole) is Outcome.TRIALS
    asked = 0

    def every_seventh() -> bool:
        nonlocal asked
        asked += 1
        return asked % 7 == 0

    for _ in range(100):
        if search_beside(tmp_path / "parts", parts, every_seventh) is Outcome.TRIALS:
            break
    expected = baseline_studies(tmp_path / "whole")
    found = baseline_studies(tmp_path / "parts")
    assert list(found) == ["random", "uniform", "global"]
    for name, study in found.items():
        assert comparable(study.trials) == comparable(expected[name].trials)
        assert study.segments == expected[name].segments
        assert study.requested == whole.requested
        # The first aim is a size to try, not the whole network.
        assert study.segments[0].aim.bounds["macs"] == whole.segments[0].aim.bounds["macs"]
