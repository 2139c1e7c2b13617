"""The command that trains: a base network, or one that shrinks to a budget on its way."""

from typing import Any

from evosearch import api
from evosearch.cli.app import app, messages, output
from evosearch.cli.parameters import command
from evosearch.report.progress import shown


@command(app, api.train)
def train(**given: Any) -> None:
    """Train a network under a budget; or, without one, the base network, which is cached."""
    from evosearch.run.replicas import replica

    try:
        with replica(given["out"]) as out, shown(messages) as callbacks:
            done = api.train(**{**given, "out": out}, callbacks=callbacks)
    except KeyboardInterrupt:
        output.print("stopped: evosearch resume goes on with a run that was begun")
        raise
    if isinstance(done, api.Run):
        conclude_training(done)
        return
    score = done.score
    output.print(f"search {score.metric} {score.accuracy_text} % on {score.images} images")
    output.print(f"weights: {done.weights}", soft_wrap=True)


def conclude_training(run: api.Run) -> None:
    """Prints what came of a training under a budget."""
    from evosearch.report.networks import networks_table
    from evosearch.run.finished import Trained

    assert isinstance(run.ended, Trained)
    ended = run.ended
    output.print(networks_table(run.study, [ended.network]))
    output.print(
        f"{ended.recipe}: {ended.seconds:.1f} s; its steps cost {ended.share:.1%} of those of one"
        f" training of the whole network{', after that' if ended.from_base else ''}, in image-MACs"
        " forward and backward"
    )
    if ended.drop is not None:
        output.print(f"it {ended.drop}")
    output.print(f"artifact: {ended.artifact.folder}", soft_wrap=True)
    output.print(
        f"run: {run.folder} (evosearch pareto shows its networks on the way)", soft_wrap=True
    )
