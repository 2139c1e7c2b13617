"""The Optuna study of the weights that `rates` has tried, in memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import optuna
from optuna.distributions import BaseDistribution

from evosearch.strategies.base import relative_losses
from evosearch.study.trial import Trial


def weight_study(
    trials: Sequence[Trial], distributions: Mapping[str, BaseDistribution]
) -> optuna.Study:
    """Returns a study of all trials with weights within the spans.

    SPDY's sampler knows no spans. Each is told its loss relative to the uniform plan of its
    budget.

    Args:
        trials: told so far.
        distributions: of the weights.
    """
    relative = relative_losses(trials, lambda t: t.genome["operator"] == "uniform")
    with _quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.add_trials(
        optuna.trial.create_trial(
            params=dict(trial.genome["weights"]),
            distributions=dict(distributions),
            value=relative[trial.number],
        )
        for trial in trials
        if "weights" in trial.genome
        and trial.genome["operator"] != "spdy"
        and trial.number in relative
    )
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from announcing a study that nobody else will see."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
