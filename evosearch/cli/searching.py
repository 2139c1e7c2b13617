"""The commands that search."""

from typing import Any

from evosearch import api
from evosearch.cli.app import app, messages, output
from evosearch.cli.parameters import command
from evosearch.cli.training import conclude_training
from evosearch.engine.loop import Outcome
from evosearch.processes import require_alone
from evosearch.report.progress import Pace, SearchProgress, study_summary
from evosearch.study.study import Study


@command(app, api.search)
def search(**given: Any) -> None:
    """Search for the best channels to keep within a budget.

    What is not given is as the space file says, or else its default.
    """
    require_alone("search")
    with SearchProgress(messages) as progress:
        run = api.search(**given, callbacks=progress.callbacks)
    _conclude(run, progress.pace)


@command(app, api.resume)
def resume(**given: Any) -> None:
    """Go on with a run that was stopped or killed, or with a search for another budget."""
    from evosearch.run.finished import Trained
    from evosearch.run.replicas import replica

    with replica(given["run"]) as own, SearchProgress(messages, "training") as progress:
        run = api.resume(**{**given, "run": own}, callbacks=progress.callbacks)
    if isinstance(run.ended, Trained):
        conclude_training(run)
    else:
        _conclude(run, progress.pace)


def _conclude(run: api.Run, pace: Pace) -> None:
    """Prints what came of a search.

    Raises:
        KeyboardInterrupt: it was stopped; the run is whole, and the last line says how to go on.
    """
    from evosearch.run.ended import Ended

    assert isinstance(run.ended, Ended)
    outcome, certificate = run.ended.outcome, run.ended.certificate
    output.print(f"{len(run.study.trials)} trials: {outcome.value}; {study_summary(run.study)}")
    if not run.front.members:
        output.print(_nearest(run.study))
    if pace.trials:
        output.print(f"{pace.rate}; {pace.shares}")
    if certificate is not None:
        output.print(str(certificate))
    output.print(f"run: {run.folder} (evosearch pareto shows its front)", soft_wrap=True)
    if outcome is Outcome.STOPPED:
        output.print(f"go on with: evosearch resume {run.folder}", soft_wrap=True)
        raise KeyboardInterrupt


def _nearest(study: Study) -> str:
    """Returns why a front is empty."""
    floor = study.budget.least_accuracy
    scored = [t.evaluation.score.accuracy for t in study.trials if t.is_complete and t.evaluation]
    if floor is None or not scored:
        return "no trial meets the budget yet; resume the run for longer"
    return (
        f"no trial has kept a search accuracy of {floor:.2%} yet, the best {max(scored):.2%};"
        " resume the run for longer"
    )
