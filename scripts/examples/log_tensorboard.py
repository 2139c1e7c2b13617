"""Watch a search and the fine-tuning after it in TensorBoard.

.venv/bin/pip install tensorboard
.venv/bin/python scripts/examples/log_tensorboard.py [--trials 40] [--out RUN] [--logs FOLDER]
.venv/bin/tensorboard --logdir FOLDER
"""

import argparse
from pathlib import Path
from typing import Any

import evosearch

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"


def callbacks(writer: Any) -> evosearch.Callbacks:
    """Returns callbacks that write to a `SummaryWriter`: curves over trials, and over epochs."""

    def on_trial(trial: Any) -> None:
        if trial.is_complete:
            writer.add_scalar("trial/search loss", trial.loss, trial.number)
            writer.add_scalar("trial/FLOPs", trial.cost.flops, trial.number)

    def on_front(front: Any) -> None:
        number = len(front.trials)
        writer.add_scalar("front/members", len(front.members), number)
        writer.add_scalar("front/least search loss", front.best().loss, number)

    def on_epoch(record: Any) -> None:
        if record.train_loss is not None:
            writer.add_scalar("epoch/train loss", record.train_loss, record.epoch)
        if record.search is not None:
            writer.add_scalar("epoch/search loss", record.search.loss, record.epoch)

    return evosearch.Callbacks(
        on_stage=lambda stage: writer.add_text("stage", stage),
        on_trial=on_trial,
        on_front=on_front,
        on_epoch=on_epoch,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--logs", type=Path, default=Path("runs/tensorboard"))
    options = parser.parse_args()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SystemExit("not installed: .venv/bin/pip install tensorboard") from None

    with SummaryWriter(options.logs) as writer:
        told = callbacks(writer)
        run = evosearch.search(
            SPACE, flops="30%..70%", trials=options.trials, out=options.out, callbacks=told
        )
        done = evosearch.finetune(run, at="flops=50%", callbacks=told)
        writer.add_text("artifact", str(done.artifact.folder))
    print(f"{len(run.study.trials)} trials in {options.logs}")


if __name__ == "__main__":
    main()
