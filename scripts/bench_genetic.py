"""Measures `genetic` on digits: its front against other searches, and its plans at new budgets.

Fronts: for every seed, the hypervolume of one genetic search over all sizes against random search
and Optuna's own NSGA-II over widths (with the two-step channels at its widths), each with as many
full evaluations as the genetic search made, its sensitivity probes included. Reference point: the
base network's MACs and the largest loss among base, lowest-L1 uniform plans and ten times the base
loss; both axes are divided by it.

Plans: nine budgets that one genetic search did not name, each against a genetic search of as many
trials for that budget alone; search split, no fine-tuning. Prints a Markdown report.

    .venv/bin/python scripts/bench_genetic.py [--seeds 10] [--trials 200]
"""

import argparse
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
import torch

from evosearch.engine.loop import Limits
from evosearch.report.searches import reference_point
from evosearch.run.baselines import baseline_studies
from evosearch.run.config import SearchConfig
from evosearch.run.picking import measure_at
from evosearch.run.planning import plan_at
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.seeding import Stream, integer
from evosearch.space.budget import BudgetRequest
from evosearch.strategies.two_step import TwoStep

SPACE = Path(__file__).parent.parent / "search_spaces" / "digits_resnet.toml"
ALL_SIZES = "1%..100%"
"""In FLOPs; the smallest reachable network has 0.5 %."""
BUDGETS = tuple(range(23, 90, 8))
"""In percent of the FLOPs: from 23 to 87."""


def searched(folder: Path, flops: str, seed: int, trials: int) -> Session:
    """Returns a finished genetic search."""
    run = Session.create(
        folder,
        space_file=load_space_file(SPACE),
        space_folder=SPACE.parent,
        search=SearchConfig(strategy="genetic", seed=seed),
        request=BudgetRequest.of(flops=flops),
    )
    run.search(Limits(trials=trials))
    return run


def nsga2_points(run: Session, evaluations: int, seed: int) -> np.ndarray:
    """Returns MACs and loss of every plan that Optuna's NSGA-II over widths tries."""
    space = run.prepared.subject.discovery.space
    two_step = TwoStep(space, run.prepared.knowledge.gram)
    sampler = optuna.samplers.NSGAIISampler(
        seed=integer(seed, Stream.ASK, "nsga2"), population_size=20
    )
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    points, known = [], {}
    asked = 0
    while len(known) < evaluations and asked < 50 * evaluations:
        trial = study.ask()
        asked += 1
        widths = np.array(
            [
                trial.suggest_categorical(group.name, group.legal_widths())
                if group.multiple_of > 1
                else trial.suggest_int(group.name, group.legal_widths()[0], group.size)
                for group in space.groups
            ]
        )
        mask = two_step.mask(widths)
        if mask not in known:
            known[mask] = run.prepared.evaluator.evaluate(mask).score.loss
        macs = space.cost(mask).macs
        study.tell(trial, [known[mask], macs])
        points.append([macs, known[mask]])
    return np.array(points, dtype=np.float64)


def compare_fronts(folder: Path, seed: int, trials: int) -> dict[str, Any]:
    """Returns the hypervolumes of one seed."""
    run = searched(folder / "genetic", ALL_SIZES, seed, trials)
    reference = np.array(reference_point(run.study, run.study.front()))
    evaluations = run.full_evaluations
    run.search_baselines()
    rival = baseline_studies(run.folder)["random"]
    points = {
        "genetic": run.study.front().points,
        "random": rival.front().points,
        "nsga2": nsga2_points(run, evaluations, seed),
    }
    run.close()
    volumes = {
        name: float(moocore.hypervolume(values / reference, ref=[1.0, 1.0]))
        for name, values in points.items()
    }
    return {"seed": seed, "evaluations": evaluations, "reference": reference, **volumes}


def compare_plans(folder: Path, seed: int, trials: int) -> list[dict[str, Any]]:
    """Returns the plans of one search at budgets that it did not name, against dedicated ones."""
    run = searched(folder / "wide", "20%..90%", seed, trials)
    run.close()
    rows = []
    for percent in BUDGETS:
        budget = BudgetRequest.of(flops=f"{percent}%").resolve(run.study.header.base_cost)
        began = time.perf_counter()
        plan = plan_at(run.folder, run.study, budget)
        seconds = time.perf_counter() - began
        fits = budget.violation(plan.cost) == 0
        plan = measure_at(run.folder, f"flops={percent}%")
        dedicated = searched(folder / f"dedicated-{percent}", f"{percent}%", seed, trials)
        dedicated.close()
        rows.append(
            {
                "budget": percent,
                "plan": plan.name,
                "fits": fits,
                "seconds": seconds,
                "accuracy": 100 * plan.evaluation.score.accuracy,
                "loss": plan.evaluation.score.loss,
                "dedicated": 100 * dedicated.front.best().evaluation.score.accuracy,
                "dedicated_loss": dedicated.front.best().evaluation.score.loss,
            }
        )
    return rows


def report(fronts: list[dict[str, Any]], plans: list[dict[str, Any]], trials: int) -> str:
    """Returns the results as a Markdown page."""
    lines = [
        f"# Digits: `genetic`, {trials} trials",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {torch.get_num_threads()} threads,"
        f" Python {platform.python_version()}, torch {torch.__version__},"
        f" optuna {optuna.__version__}.",
        *(front_lines(fronts) if fronts else ()),
        *(plan_lines(plans) if plans else ()),
    ]
    return "\n".join(lines)


def front_lines(fronts: list[dict[str, Any]]) -> list[str]:
    """Returns the hypervolumes as Markdown."""
    first = fronts[0]["reference"]
    lines = [
        "",
        "Hypervolume of the front over all sizes (higher is better). Reference point:"
        f" {first[0]:.0f} MACs (the base network) and {first[1]:.3f} nats (seed 0); both axes"
        " divided by it. All searches made the same number of full evaluations.",
        "",
        "| seed | full evaluations | genetic | random | Optuna NSGA-II over widths |",
        "|---|---|---|---|---|",
    ]
    names = ("genetic", "random", "nsga2")
    for row in fronts:
        cells = " | ".join(f"{row[name]:.4f}" for name in names)
        lines.append(f"| {row['seed']} | {row['evaluations']} | {cells} |")
    cells = " | ".join(
        f"{statistics.mean(r[n] for r in fronts):.4f} ± {_deviation([r[n] for r in fronts]):.4f}"
        for n in names
    )
    lines.append(f"| mean ± s.d. | | {cells} |")
    for rival in names[1:]:
        won = sum(row["genetic"] > row[rival] for row in fronts)
        lines.append(f"\ngenetic above {rival} on {won} of {len(fronts)} seeds.")
    return lines


def plan_lines(plans: list[dict[str, Any]]) -> list[str]:
    """Returns the plans as Markdown."""
    lines = [
        "",
        "Plans of one search over 20 % to 90 % at budgets that it did not name, against a search"
        " of as many trials for that budget alone (search split, no fine-tuning):",
        "",
        "| budget | plan | fits | answered in, s | loss | dedicated | accuracy, % | dedicated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in plans:
        lines.append(
            f"| {row['budget']} % | {row['plan']} | {'yes' if row['fits'] else 'NO'}"
            f" | {row['seconds']:.2f} | {row['loss']:.4f} | {row['dedicated_loss']:.4f}"
            f" | {row['accuracy']:.2f} | {row['dedicated']:.2f} |"
        )
    gap = statistics.mean(row["dedicated"] - row["accuracy"] for row in plans)
    lines.append(f"\nMean gap to the dedicated search: {gap:.2f} points.")
    return lines


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--no-plans", action="store_true", help="fronts alone")
    parser.add_argument("--no-fronts", action="store_true", help="plans alone")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        seeds = 0 if arguments.no_fronts else arguments.seeds
        fronts = [
            compare_fronts(Path(folder, f"seed-{seed}"), seed, arguments.trials)
            for seed in range(seeds)
        ]
        plans = []
        if not arguments.no_plans:
            plans = compare_plans(Path(folder, "plans"), 0, arguments.trials)
    print(report(fronts, plans, arguments.trials))


if __name__ == "__main__":
    main()
