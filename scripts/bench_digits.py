"""Measures the main job on digits over seeds: searched against lowest-L1 uniform, test accuracy.

For every seed and budget: one search, its best trial, and the lowest-L1 uniform plan at the same
budget; both measured raw and after the same distillation. Prints a Markdown report.

    .venv/bin/python scripts/bench_digits.py [--seeds 5] [--trials 60] [--json FILE]
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from evosearch.engine.loop import Limits
from evosearch.run.config import SearchConfig
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.space.budget import BudgetRequest
from evosearch.strategies.fixed_plans import uniform_mask
from evosearch.tasks.testing import TestReport
from evosearch.training.distillation import distil

SPACE = Path(__file__).parent.parent / "search_spaces" / "digits_resnet.toml"
BUDGETS = ("50%", "25%")


def measure(seed: int, budget: str, trials: int, strategy: str, folder: Path) -> dict[str, Any]:
    """Returns test accuracies in percent, and seconds, of one seed at one budget."""
    file = load_space_file(SPACE)
    began = time.perf_counter()
    run = Session.create(
        folder,
        space_file=file,
        space_folder=SPACE.parent,
        search=SearchConfig(seed=seed, strategy=strategy),
        request=BudgetRequest.of(flops=budget),
    )
    run.search(Limits(trials=trials))
    searched_in = time.perf_counter() - began
    trial = run.study.front().best()
    prepared, subject = run.prepared, run.prepared.subject
    space = subject.discovery.space
    rival = uniform_mask(space, run.study.header.budget, prepared.knowledge.scores["l1"])
    networks = {
        "base": subject.model,
        "uniform": prepared.evaluator.builder.plain(rival),
        "searched": prepared.evaluator.builder.final(trial.mask),
    }
    seconds = {}
    for name, mask in (("uniform", rival), ("searched", trial.mask)):
        build = (
            prepared.evaluator.builder.plain
            if name == "uniform"
            else prepared.evaluator.builder.final
        )
        student = build(mask)
        began = time.perf_counter()
        distil(
            subject.model, student, subject.data.train, subject.data.search, file.finetune, seed
        )
        seconds[name] = time.perf_counter() - began
        networks[f"{name} distilled"] = student
    report = TestReport(folder / "test.json", file.data, SPACE.parent)
    accuracies = {
        name: 100 * report.measure(name, network).score.accuracy
        for name, network in networks.items()
    }
    run.close()
    return {
        "seed": seed,
        "budget": budget,
        "accuracy": accuracies,
        "flops_ratio": trial.cost.relative_to(space.base_cost)["macs"],
        "search_seconds": searched_in,
        "distil_seconds": seconds["searched"],
    }


def report(results: list[dict[str, Any]], strategy: str, trials: int) -> str:
    """Returns the results as a Markdown page."""
    names = list(results[0]["accuracy"])
    lines = [
        f"# Digits: `{strategy}`, {trials} trials, {len({r['seed'] for r in results})} seeds",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {torch.get_num_threads()} threads,"
        f" Python {platform.python_version()}, torch {torch.__version__}.",
        "Test accuracy in percent of 450 images (standard error of one figure about 0.6 points).",
        "",
        f"| FLOPs | seed | {' | '.join(names)} | search, s | distillation, s |",
        f"|---|---|{'---|' * (len(names) + 2)}",
    ]
    for budget in dict.fromkeys(result["budget"] for result in results):
        chosen = [result for result in results if result["budget"] == budget]
        for r in chosen:
            cells = [f"{r['accuracy'][name]:.2f}" for name in names]
            lines.append(
                f"| {r['flops_ratio']:.1%} | {r['seed']} | {' | '.join(cells)}"
                f" | {r['search_seconds']:.1f} | {r['distil_seconds']:.1f} |"
            )
        columns = [[r["accuracy"][name] for r in chosen] for name in names]
        cells = [f"**{statistics.mean(c):.2f}** ± {_deviation(c):.2f}" for c in columns]
        lines.append(f"| ≤ {budget} | mean ± s.d. | {' | '.join(cells)} | | |")
    return "\n".join(lines)


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--strategy", default="rates")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [
            measure(
                seed,
                budget,
                arguments.trials,
                arguments.strategy,
                Path(folder, f"{seed}-{budget}"),
            )
            for budget in BUDGETS
            for seed in range(arguments.seeds)
        ]
    if arguments.json:
        arguments.json.write_text(json.dumps(results))
    print(report(results, arguments.strategy, arguments.trials))


if __name__ == "__main__":
    main()
