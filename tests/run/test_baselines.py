"""Baselines beside a search: begun at its budget, and equal wherever they were cut."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evosearch.engine.loop import Limits, Outcome, search
from evosearch.engine.parallel import OneByOne
from evosearch.run.baselines import search_baselines
from evosearch.run.rivals import rival_studies
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from tests.run.test_segments import dropping, go
from tests.run.test_session import SPACE, builder
from tests.toys import ToyEvaluator, comparable


def finished(folder: Path) -> Any:
    """Returns a run that may lose 20 points of accuracy, with 24 trials."""
    dropping(folder, 20.0)
    study = go(folder, "rates", 24)

    def search_with(strategy: str, study: Study, limits: Limits, **hooks: Any) -> Outcome:
        return search(
            study=study,
            space=SPACE,
            build=builder(strategy),
            executor=OneByOne(ToyEvaluator()),
            store=ScoreStore(folder / "scores"),
            limits=limits,
            **hooks,
        )

    return SimpleNamespace(
        folder=folder,
        study=study,
        search_with=search_with,
        prepared=SimpleNamespace(
            knowledge=SimpleNamespace(sensitivity={}),
            subject=SimpleNamespace(discovery=SimpleNamespace(space=SPACE)),
        ),
    )


def test_baselines_of_an_accuracy_cut_anywhere_resume_to_the_same(tmp_path: Path) -> None:
    whole, parts = finished(tmp_path / "whole"), finished(tmp_path / "parts")
    assert search_baselines(whole) is Outcome.TRIALS
    asked = 0

    def every_seventh() -> bool:
        nonlocal asked
        asked += 1
        return asked % 7 == 0

    for _ in range(100):
        if search_baselines(parts, should_stop=every_seventh) is Outcome.TRIALS:
            break
    expected, found = rival_studies(whole.folder), rival_studies(parts.folder)
    assert list(found) == ["random", "uniform", "global"]
    for name, study in found.items():
        assert comparable(study.trials) == comparable(expected[name].trials)
        assert study.segments == expected[name].segments
        assert study.requested == whole.study.requested
        # The first aim is a size to try, not the whole network.
        assert study.segments[0].aim.bounds["macs"] == whole.study.segments[0].aim.bounds["macs"]
