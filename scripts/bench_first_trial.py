"""Times a first search by stage: a MobileNetV2 at 32 px, from the command to the process's end.

The images are waves of ten directions in noise, so that nothing is downloaded. The base network is
trained before the clock starts. Prints a Markdown table of seconds: of the clock, and of the CPU,
which depend less on what else the machine does.

    .venv/bin/python scripts/bench_first_trial.py [--trials 40] [--strategy rates] [--again]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES, SIDE, TRAIN, TEST = 10, 32, 4000, 500
SPACE = """
[model]
build = "torchvision:mobilenet_v2"
input = [3, {side}, {side}]
kwargs = {{ num_classes = {classes}, width_mult = 0.5 }}
[data]
name = "{file}:waves"
calibration = 512
search = 1000
[train]
epochs = 6
lr = 0.05
"""


def waves() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Returns images of waves, each class of another direction, for training and for test."""
    rng = np.random.default_rng(0)
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(CLASSES, size=count)
        angle = (np.pi * labels / CLASSES)[:, None, None]
        phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
        wave = np.sin(20 * (down * np.sin(angle) + right * np.cos(angle)) + phase)
        noisy = 127 + 50 * wave[:, None] + 60 * rng.normal(size=(count, 3, SIDE, SIDE))
        return noisy.clip(0, 255).astype(np.uint8), labels

    return images(TRAIN), images(TEST)


def search(space: str, out: str, strategy: str, trials: int) -> None:
    """Searches, and prints the time at which each stage and the first trial is reached."""

    def told(stage: str) -> None:
        print(f"{time.time()} {time.process_time()} {stage}", flush=True)

    import evosearch
    from evosearch.run.callbacks import Callbacks

    callbacks = Callbacks(
        on_stage=told,
        on_search=lambda *_: told("search"),
        on_trial=lambda trial: told(f"trial {trial.number}"),
    )
    evosearch.search(
        space, flops="30%..70%", strategy=strategy, trials=trials, out=out, callbacks=callbacks
    )
    told("returned")


def timed(space: Path, out: Path, strategy: str, trials: int) -> list[tuple[float, float, str]]:
    """Returns the seconds, and those of its CPU, after which a search reached each stage."""
    began, usage = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    before = usage.ru_utime + usage.ru_stime
    command = [sys.executable, __file__, "--child", space, out, strategy, trials]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        found = [line.strip().split(" ", 2) for line in child.stdout]
    if child.returncode:
        raise SystemExit(f"the search ended with exit code {child.returncode}")
    reached = [(float(at) - began, float(cpu), stage) for at, cpu, stage in found]
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime - before
    return [*reached, (time.time() - began, cpu, "end of the process")]


def main() -> None:
    """Measures, and prints the table."""
    if sys.argv[1:2] == ["--child"]:
        search(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--strategy", default="rates")
    parser.add_argument("--again", action="store_true", help="search the same space twice")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("EVOSEARCH_CACHE", f"{name}/cache")
        space = Path(name) / "mobilenet.toml"
        space.write_text(SPACE.format(side=SIDE, classes=CLASSES, file=Path(__file__).resolve()))
        subprocess.run(
            [sys.executable, "-m", "evosearch", "train", str(space)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for number in range(1 + given.again):
            print(f"\n| search {number + 1}: reached | s | CPU s |\n|---|---|---|", flush=True)
            seen = set()
            for at, cpu, stage in timed(
                space, Path(name) / f"{number}", given.strategy, given.trials
            ):
                words = stage.split(":")[0]
                if words not in seen and not (words.startswith("trial") and words[6:] != "0"):
                    print(f"| {words} | {at:.1f} | {cpu:.1f} |")
                seen.add(words)


if __name__ == "__main__":
    main()
