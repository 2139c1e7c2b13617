"""Measures on digits what elastic weights are worth before any training, against compensation.

For every build and seed: one search over a range of sizes, the best network that it knows at each
size, and plans without a search at the same size, all as they are shipped untrained; on test. The
last row has channels that were drawn, at the widths of the row above: elastic weights are trained
for one order of channels. Every finished seed is kept in --runs, so the script goes on where it
was stopped. Prints a Markdown page.

    .venv/bin/python scripts/bench_elastic.py [--seeds 3] [--trials 60] [--runs FOLDER]
"""

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from evosearch.data.splits import load_test_split
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.loop import Limits
from evosearch.machine import environment
from evosearch.run.config import SearchConfig
from evosearch.run.planning import measured_plan
from evosearch.run.references import GLOBAL, UNIFORM, plans_without_search
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.seeding import Stream, generator
from evosearch.space.budget import BudgetRequest
from evosearch.strategies.two_step_plan import two_step_plan
from evosearch.tasks.scoring import image_scores
from seededruns import options, over_seeds

SPACE = Path(__file__).parent.parent / "search_spaces" / "digits_resnet.toml"
BUILDS = ("compensated", "elastic")
RANGE = "10%..50%"
BUDGETS = ("8%", "10%", "15%", "25%", "50%")
SEARCHED, ALLOCATED, DRAWN = "searched", "two-step plan, no search", "its widths, drawn channels"
PLANS = (SEARCHED, ALLOCATED, UNIFORM, GLOBAL, DRAWN)


def measured(build: str, seed: int, trials: int, folder: Path) -> dict[str, Any]:
    """Returns the test accuracy of each plan at each budget, of one search with a build."""
    file, began = load_space_file(SPACE), time.process_time()
    session = Session.create(
        folder,
        space_file=file,
        space_folder=SPACE.parent,
        search=SearchConfig(seed=seed, evaluator=EvaluatorConfig.model_validate({"build": build})),
        request=BudgetRequest.of(flops=RANGE),
    )
    prepared_in = time.process_time() - began
    session.search(Limits(trials=trials))
    prepared, subject = session.prepared, session.prepared.subject
    space, knowledge = subject.discovery.space, prepared.knowledge
    split = load_test_split(file.data, SPACE.parent)
    rng = generator(seed, Stream.STATISTICS, "bench")
    found: dict[str, dict[str, float]] = {}
    for at in BUDGETS:
        budget = BudgetRequest.of(flops=at).resolve(space.base_cost)
        allocated = two_step_plan(space, budget, knowledge.gram)
        chance = {group.name: rng.random(group.size) for group in space.groups}
        masks = {
            ALLOCATED: allocated,
            **plans_without_search(space, budget, knowledge, prepared.config.search.criterion),
            DRAWN: space.top_channels(space.widths(allocated), chance),
        }
        if at != BUDGETS[0]:  # a size that the search was not for
            plan = measured_plan(folder, session.study, f"flops={at}", prepared.evaluator.evaluate)
            masks[SEARCHED] = plan.mask
        networks = {name: prepared.evaluator.builder.final(mask) for name, mask in masks.items()}
        found[at] = {
            name: image_scores(network, split, task=subject.task).score.accuracy
            for name, network in networks.items()
        }
    session.close()
    return {"seed": seed, "prepared_in": prepared_in, "accuracy": found}


def page(results: Mapping[str, Sequence[Mapping[str, Any]]], trials: int) -> str:
    """Returns the results as a Markdown page."""
    machine, seeds = environment(torch.get_num_threads()), len(next(iter(results.values())))
    lines = [
        f"# Elastic weights on digits, before training: {trials} trials of `rates`, {seeds} seeds",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine['processor']}, {torch.get_num_threads()} thread,"
        f" Python {platform.python_version()}, torch {torch.__version__}. Made by"
        " `scripts/bench_elastic.py`.",
        "",
        "Test accuracy in percent of 450 images, mean ± standard deviation over the seeds of the",
        "search and of elastic training; base network and splits are the same for all. One search",
        f"a seed and build, over {RANGE} of the FLOPs; {BUDGETS[0]} is under what weights were",
        "trained for.",
    ]
    for at in BUDGETS:
        lines += ["", f"## {at} of the FLOPs", ""]
        lines += [f"| plan | {' | '.join(BUILDS)} |", "|---|--:|--:|"]
        for name in PLANS:
            cells = [
                [100 * row["accuracy"][at][name] for row in results[build]]
                for build in BUILDS
                if name in results[build][0]["accuracy"][at]
            ]
            if cells:
                lines.append(f"| {name} | {' | '.join(map(_mean, cells))} |")
    taken = {build: [row["prepared_in"] for row in rows] for build, rows in results.items()}
    shown = ", ".join(f"{build} {statistics.median(own):.0f}" for build, own in taken.items())
    return (
        "\n".join([*lines, "", f"Processor seconds before the first trial, median: {shown}."])
        + "\n"
    )


def _mean(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def main() -> None:
    given = options(__doc__, seeds=3, trials=60, runs=Path("runs/bench_elastic"))
    print(page(over_seeds(BUILDS, given, measured), given.trials), end="")


if __name__ == "__main__":
    main()
