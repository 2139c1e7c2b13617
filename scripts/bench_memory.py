"""Measures the peak memory of a search over torchvision's ResNet-50 at 224 px, on noise.

Everything that a search does is in it: tracing and proof, Gram matrices, one criterion, and trials
that are compensated and scored. The network comes with weights, as a user's does: training it here
would take the memory of its batches. Prints the peak resident memory after each stage.

    .venv/bin/python scripts/bench_memory.py [--calibration 512] [--search 256] [--trials 2]
"""

import argparse
import resource
import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet50

from evosearch.engine.loop import Limits
from evosearch.machine import torch_seeded
from evosearch.models.weights import save_weights
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import SearchConfig
from evosearch.run.session import Session
from evosearch.run.spacefile import SpaceFile, load_space_file
from evosearch.space.budget import BudgetRequest

SPACE = Path(__file__).parent.parent / "search_spaces" / "resnet50.toml"


def peak() -> str:
    """Returns the most memory that this process has held so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def space_with_weights(images: dict[str, int], folder: Path) -> SpaceFile:
    """Returns the space with so many images and with random weights, kept in a folder."""
    with torch_seeded(0):
        model = resnet50().train()
        with torch.no_grad():
            for _ in range(4):  # so that BatchNorm knows the spread of what comes in
                model(torch.randn(8, 3, 224, 224))
    save_weights(model, folder / "resnet50.safetensors")
    file = load_space_file(SPACE)
    weights = {"weights": str(folder / "resnet50.safetensors")}
    return file.model_copy(
        update={
            "data": file.data.model_copy(update=images),
            "model": file.model.model_copy(update=weights),
        }
    )


def main() -> None:
    """Searches, and prints the peak on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=int, default=512, help="images")
    parser.add_argument("--search", type=int, default=256, help="images")
    parser.add_argument("--trials", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = {"calibration": args.calibration, "search": args.search}
    with tempfile.TemporaryDirectory() as folder:
        file = space_with_weights(images, Path(folder))
        print(f"torch, evosearch and the weights loaded: {peak()}", flush=True)
        run = Session.create(
            Path(folder) / "run",
            space_file=file,
            space_folder=SPACE.parent,
            search=SearchConfig(strategy="uniform", trials=args.trials),
            request=BudgetRequest.of(flops="30%..70%"),
            callbacks=Callbacks(
                on_stage=lambda stage: print(f"before {stage}: {peak()}", flush=True)
            ),
        )
        print(f"before the first trial: {peak()}", flush=True)
        run.search(
            Limits(trials=args.trials),
            Callbacks(
                on_trial=lambda trial: print(f"after trial {trial.number}: {peak()}", flush=True)
            ),
        )
        run.prepared.evaluator.builder.final(run.study.front().best().mask)
        print(f"after building the best one for keeps: {peak()}")
        run.close()


if __name__ == "__main__":
    main()
