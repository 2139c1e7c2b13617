"""Baselines beside a search: what plans that learn nothing reach at as many full evaluations."""

import shutil
from collections.abc import Callable
from dataclasses import replace

from evosearch.aims import begin_segment
from evosearch.engine.loop import Limits, Outcome
from evosearch.run.rivals import FOLDER, NAMES
from evosearch.run.session import Run
from evosearch.study.study import Study
from evosearch.study.trial import Trial


def search_baselines(
    run: Run,
    *,
    on_trial: Callable[[Trial], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Searches with each baseline, with the run's own evaluator, budget and limits.

    Each gets as many trials as the run has full evaluations, sensitivity probes included.
    """
    limits = Limits(trials=full_evaluations(run))
    for name in NAMES:
        study = _opened(run, name)
        outcome = run.search_with(name, study, limits, on_trial=on_trial, should_stop=should_stop)
        if outcome is Outcome.STOPPED:
            return outcome
    return Outcome.TRIALS


def full_evaluations(run: Run) -> int:
    """Returns how many networks a run has scored on the whole search split for its search."""
    curves = run.prepared.knowledge.sensitivity.values()
    probes = sum(len(curve.widths) - 1 for curve in curves)
    return probes + run.study.full_evaluations


def _opened(run: Run, name: str) -> Study:
    """Returns the study of a baseline, begun where there is none, at the run's last budget."""
    place = run.folder / FOLDER / name
    if not place.is_dir():
        partial = place.with_name(f".{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        Study.create(partial, replace(run.study.header, strategy=name))
        partial.rename(place)
    study = Study.open_for_appending(place)
    budget, checks = run.study.requested, run.study.segments[-1].checks
    if not study.trials or study.requested != budget:
        smallest = run.prepared.subject.discovery.space.smallest_cost
        begin_segment(study, budget, smallest, checks)
    return study
