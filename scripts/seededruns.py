"""Benchmarks that search once for every setting and seed, and keep what each search gave."""

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

RESULT = "result.json"
Result = dict[str, Any]
Setting = TypeVar("Setting")


def options(description: str | None, *, seeds: int, trials: int, runs: Path) -> argparse.Namespace:
    """Reads the command line; what is given here are its defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--runs", type=Path, default=runs)
    return parser.parse_args()


def over_seeds(
    settings: Sequence[Setting],
    given: argparse.Namespace,
    searched: Callable[[Setting, int, int, Path], Result],
) -> dict[Setting, list[Result]]:
    """Returns the results of every setting, a seed after the other.

    Args:
        settings: what is searched for.
        given: as `options` reads it.
        searched: gives the result of a setting, a seed, a number of trials and a new folder.
    """
    torch.set_num_threads(1)

    def result(setting: Setting, seed: int) -> Result:
        folder = given.runs / f"{str(setting).strip('%')}-{seed}"
        kept = folder / RESULT
        if kept.is_file():
            known: Result = json.loads(kept.read_text())
            return known
        shutil.rmtree(folder, ignore_errors=True)
        found = searched(setting, seed, given.trials, folder)
        kept.write_text(json.dumps(found))
        return found

    return {s: [result(s, seed) for seed in range(given.seeds)] for s in settings}
