"""Log a search to MLflow: its settings, each trial, the front, and the network that is finished.

.venv/bin/pip install mlflow
.venv/bin/python scripts/examples/log_mlflow.py [--trials 40] [--out RUN]
.venv/bin/mlflow ui
"""

import argparse
from pathlib import Path
from typing import Any

import evosearch

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"


def callbacks(mlflow: Any) -> evosearch.Callbacks:
    """Returns callbacks that log to the active run of MLflow: a step is a trial, or an epoch."""

    def on_trial(trial: Any) -> None:
        if trial.is_complete:
            found = {"search_loss": trial.loss, "flops": trial.cost.flops}
            mlflow.log_metrics(found, step=trial.number)

    def on_front(front: Any) -> None:
        found = {"front_members": len(front.members), "least_search_loss": front.best().loss}
        mlflow.log_metrics(found, step=len(front.trials))

    def on_epoch(record: Any) -> None:
        if record.search is not None:
            mlflow.log_metrics({"epoch_search_loss": record.search.loss}, step=record.epoch)

    return evosearch.Callbacks(
        on_stage=lambda stage: mlflow.set_tag("stage", stage),
        on_trial=on_trial,
        on_front=on_front,
        on_epoch=on_epoch,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        import mlflow
    except ImportError:
        raise SystemExit("not installed: .venv/bin/pip install mlflow") from None

    with mlflow.start_run(run_name=SPACE.stem):
        mlflow.log_params({"flops": "30%..70%", "trials": options.trials})
        told = callbacks(mlflow)
        run = evosearch.search(
            SPACE, flops="30%..70%", trials=options.trials, out=options.out, callbacks=told
        )
        done = evosearch.finetune(run, at="flops=50%", callbacks=told)
        test = done.networks[-1].test
        mlflow.log_metrics({"test_loss": test.loss, "test_accuracy": test.accuracy})
        mlflow.log_artifacts(str(done.artifact.folder), "network")
    print(f"{len(run.study.trials)} trials logged")


if __name__ == "__main__":
    main()
