"""The studies of the baselines beside a search, each with as many full evaluations.

Imported without torch.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evosearch.aims import begin_segment
from evosearch.engine.loop import Outcome
from evosearch.run.folder import RunFolder
from evosearch.space.cost import Cost
from evosearch.study.study import Study

BASELINES = ("random", "uniform", "global")
"""The strategies that are searched beside a run, in this order."""


def baseline_studies(folder: Path) -> dict[str, Study]:
    """Returns the studies of a run's baselines, by name; only those that were begun."""
    places = {name: RunFolder(folder).baseline(name) for name in BASELINES}
    return {name: Study.open(place) for name, place in places.items() if place.is_dir()}


def search_baselines(
    folder: Path, study: Study, smallest: Cost, search: Callable[[str, Study], Outcome]
) -> Outcome:
    """Searches with one baseline after another, at the last budget of a run.

    Args:
        folder: of the run.
        study: of the run.
        smallest: the smallest reachable cost.
        search: searches with a strategy, recording in a study.
    """
    for name in BASELINES:
        if search(name, _opened(folder, study, smallest, name)) is Outcome.STOPPED:
            return Outcome.STOPPED
    return Outcome.TRIALS


def _opened(folder: Path, study: Study, smallest: Cost, name: str) -> Study:
    """Returns the study of a baseline, begun where there is none."""
    place = RunFolder(folder).baseline(name)
    if not place.is_dir():
        partial = place.with_name(f".{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        Study.create(partial, replace(study.header, strategy=name))
        partial.rename(place)
    baseline = Study.open_for_appending(place)
    if not baseline.trials or baseline.requested != study.requested:
        begin_segment(baseline, study.requested, smallest, study.segments[-1].checks)
    return baseline
