"""Measures on digits what a search adds to plans without one, before and after fine-tuning.

For every seed of the search and every budget: one search, its best trial, and the plans that need
no search at the same budget, all but the first built alike; each of them before and after the same
distillation, on test. Every finished seed is kept in --runs, so the script goes on where it was
stopped. Prints a Markdown page.

    .venv/bin/python scripts/bench_digits.py [--seeds 5] [--trials 60] [--runs FOLDER]
"""

import copy
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evosearch.data.splits import load_test_split
from evosearch.engine.loop import Limits
from evosearch.machine import environment
from evosearch.run.config import SearchConfig
from evosearch.run.references import GLOBAL, PLAIN, UNIFORM, plans_without_search
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.space.budget import BudgetRequest
from evosearch.strategies.fixed_plans import uniform_mask
from evosearch.study.scores import NORMAL
from evosearch.tasks.scoring import image_scores
from evosearch.training.distillation import distil
from seededruns import options, over_seeds

SPACE = Path(__file__).parent.parent / "search_spaces" / "digits_resnet.toml"
BUDGETS = ("50%", "25%")
BASE, SEARCHED = "base", "searched"
STAGES = {"built": "before fine-tuning", "distilled": "after the same distillation"}


def measured(budget: str, seed: int, trials: int, folder: Path) -> dict[str, Any]:
    """Returns which test images each network of a seed gets right."""
    file = load_space_file(SPACE)
    session = Session.create(
        folder,
        space_file=file,
        space_folder=SPACE.parent,
        search=SearchConfig(seed=seed),
        request=BudgetRequest.of(flops=budget),
    )
    session.search(Limits(trials=trials))
    best = session.study.front().best()
    prepared, subject = session.prepared, session.prepared.subject
    space, builder = subject.discovery.space, prepared.evaluator.builder
    limit, knowledge = session.study.header.budget, prepared.knowledge
    plans = plans_without_search(space, limit, knowledge, prepared.config.search.criterion)
    plain = uniform_mask(space, limit, knowledge.scores["l1"])
    networks = {
        PLAIN: builder.plain(plain),
        **{name: builder.final(mask) for name, mask in plans.items()},
        SEARCHED: builder.final(best.mask),
    }
    split = load_test_split(file.data, SPACE.parent)

    def right(network: nn.Module) -> list[float]:
        return [float(x) for x in image_scores(network, split, task=subject.task).metrics]

    found: dict[str, dict[str, list[float]]] = {"built": {BASE: right(subject.model)}}
    found["distilled"] = {}
    for name, network in networks.items():
        found["built"][name] = right(network)
        tuned = copy.deepcopy(network)
        distil(subject.model, tuned, subject.data.train, subject.data.search, file.finetune, seed)
        found["distilled"][name] = right(tuned)
    session.close()
    ratio = best.cost.relative_to(space.base_cost)["macs"]
    return {"seed": seed, "flops": ratio, "right": found}


def page(results: Mapping[str, Sequence[Mapping[str, Any]]], trials: int) -> str:
    """Returns the results as a Markdown page."""
    machine, seeds = environment(torch.get_num_threads()), len(next(iter(results.values())))
    lines = [
        f"# What the search adds on digits: {trials} trials of `rates`, {seeds} seeds",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine['processor']}, {torch.get_num_threads()} thread,"
        f" Python {platform.python_version()}, torch {torch.__version__}. Made by"
        " `scripts/bench_digits.py`.",
        "",
        "Test accuracy in percent of 450 images, mean ± standard deviation over the seeds of the",
        "search; base network and splits are the same for all. *Uniform* and *global* have",
        "the search's two-step channels and build (weights and statistics refitted), at widths",
        f"that no trial decided; *{PLAIN}* has neither. Distillation is the space's `[finetune]`.",
    ]
    for budget, rows in results.items():
        lines += ["", f"## {budget} of the FLOPs", "", *_table(rows), "", *_added(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = (BASE, PLAIN, UNIFORM, GLOBAL, SEARCHED)
    lines = [f"| network | {' | '.join(STAGES.values())} |", "|---|--:|--:|"]
    for name in names:
        cells = []
        for stage in STAGES:
            shares = [
                100 * np.mean(r["right"][stage][name]) for r in rows if name in r["right"][stage]
            ]
            cells.append(_mean(shares) if shares else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _added(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns how much better the searched network is than each plan without a search."""
    lines = [
        "| searched minus | " + " | ".join(STAGES.values()) + " |",
        "|---|--:|--:|",
    ]
    for other in (GLOBAL, UNIFORM, PLAIN):
        cells = [_difference(rows, stage, other) for stage in STAGES]
        lines.append(f"| {other} | {' | '.join(cells)} |")
    return [*lines, "", "Points, with the 95 % interval of the mean over seeds and test images."]


def _difference(rows: Sequence[Mapping[str, Any]], stage: str, other: str) -> str:
    """Returns a mean difference in points, with an interval over both seeds and test images."""
    own = [r["right"][stage] for r in rows]
    images = 100 * np.array([np.subtract(r[SEARCHED], r[other]) for r in own])
    seeds, count = images.shape
    of_images = images.mean(0).std(ddof=1) / count**0.5
    of_seeds = images.mean(1).std(ddof=1) / seeds**0.5 if seeds > 1 else 0.0
    mean, half = images.mean(), NORMAL * np.hypot(of_images, of_seeds)
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def _mean(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def main() -> None:
    given = options(__doc__, seeds=5, trials=60, runs=Path("runs/bench_digits"))
    print(page(over_seeds(BUDGETS, given, measured), given.trials), end="")


if __name__ == "__main__":
    main()
