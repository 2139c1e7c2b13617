"""Compares the importance criteria on the CIFAR-10 ResNet-20, and times them on ResNet-50.

For every criterion and seed: channels ranked from calibration images, plans at several MACs ratios
with uniform widths and with one global threshold, and the accuracy of each plan on the search
split: raw, with BatchNorm recalibrated, and compensated. Prints a Markdown report.

    EVOSEARCH_DATA=DIR .venv/bin/python scripts/bench_criteria.py --search-list FILE \
        [--criteria l1,taylor] [--ratios 0.7,0.5,0.3] [--seeds 3] [--images 1000] [--json FILE]
    .venv/bin/python scripts/bench_criteria.py --resnet50
    .venv/bin/python scripts/bench_criteria.py --seeding [--criteria l1,taylor] [--seeds 3]

The last mode asks what `genetic` gains from a criterion as a seed: hypervolume of its front on
digits, all sizes, 96 trials.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from scipy.stats import kendalltau

from evosearch.criteria import CRITERIA, criterion_class, score_channels
from evosearch.criteria.activations import OnActivations
from evosearch.criteria.base import Batches, ImportanceScores, Needs
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.data.splits import SearchSplit
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.engine.loop import Limits
from evosearch.report.searches import reference_point
from evosearch.run.config import SearchConfig
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import Subject, load_subject
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.strategies.fixed_plans import global_mask, uniform_mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.tracing.export import trace
from evosearch.tasks.scoring import score

SPACE = Path(__file__).parent.parent / "search_spaces" / "cifar10_resnet20.toml"
BATCH = 128
WIDTHS = ("uniform", "global")
BUILDS = ("raw", "recalibrated", "compensated")


def ranked(
    subject: Subject, names: Sequence[str], seed: int, images: int
) -> tuple[dict[str, ImportanceScores], dict[str, float]]:
    """Returns the scores by criterion and the seconds each took alone."""
    calibration = subject.data.calibration
    drawn = generator(seed, Stream.STATISTICS, "order").permutation(len(calibration))[:images]
    batches = list(calibration.take(drawn).batches(BATCH))
    network = ScoredNetwork(
        model=subject.model,
        groups=subject.discovery.space.groups,
        layers=subject.discovery.layers,
    )
    scores: dict[str, ImportanceScores] = {}
    seconds = {}
    for name in names:
        began = time.perf_counter()
        scores |= score_channels([name], network, batches, np.random.default_rng(seed))
        seconds[name] = time.perf_counter() - began
    return scores, seconds


def measure(
    subject: Subject, names: Sequence[str], ratios: Sequence[float], seed: int, args: Any
) -> dict[str, Any]:
    """Returns what one seed gives: accuracies in percent, seconds, Kendall's tau."""
    space = subject.discovery.space
    scores, seconds = ranked(subject, names, seed, args.calibration)
    order = generator(seed, Stream.EVALUATION, "order").permutation(len(subject.data.search))
    search = subject.data.search.take(order[: args.images])
    evaluator = MaskEvaluator(
        model=subject.model,
        discovery=subject.discovery,
        calibration=subject.data.calibration,
        search=search,
        config=EvaluatorConfig(),
        seed=seed,
    )
    accuracies = []
    for name, ratio, widths in product(names, ratios, WIDTHS):
        budget = Budget.exactly(macs=int(ratio * space.base_cost.macs))
        normalise = criterion_class(name).normaliser
        mask = (
            uniform_mask(space, budget, scores[name])
            if widths == "uniform"
            else global_mask(space, budget, {g: normalise(s) for g, s in scores[name].items()})
        )
        networks = {
            "raw": compact(subject.model, space.groups, mask).eval(),
            "recalibrated": evaluator.builder.plain(mask),
            "compensated": evaluator.builder.final(mask),
        }
        accuracies.append(
            {
                "criterion": name,
                "ratio": ratio,
                "widths": widths,
                "accuracy": {build: percent(net, search) for build, net in networks.items()},
            }
        )
        print(f"seed {seed}: {accuracies[-1]}", flush=True) if args.verbose else None
    return {
        "seed": seed,
        "base": percent(subject.model, search),
        "accuracies": accuracies,
        "seconds": seconds,
        "tau": [[agreement(scores[a], scores[b]) for b in names] for a in names],
    }


def percent(network: torch.nn.Module, split: SearchSplit) -> float:
    return 100 * score(network, split).accuracy


def agreement(left: ImportanceScores, right: ImportanceScores) -> float:
    """Returns Kendall's tau-b, mean over groups; a group scored all alike counts as zero."""
    taus = []
    for group, values in left.items():
        alike = np.ptp(values) == 0 or np.ptp(right[group]) == 0
        taus.append(0.0 if alike else kendalltau(values, right[group]).statistic)
    return float(np.mean(taus))


def report(results: list[dict[str, Any]], names: Sequence[str], args: Any) -> str:
    """Returns the results as a Markdown page."""
    error = 50 / args.images**0.5
    lines = [
        f"# Importance criteria on the CIFAR-10 ResNet-20, {len(results)} seeds",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {torch.get_num_threads()} threads,"
        f" Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        f"A seed draws {args.calibration} calibration images to score channels from, {args.images}"
        " search images to measure on, and what the criterion itself draws. Search accuracy in"
        f" percent, mean ± standard deviation over seeds; one figure's standard error is at most"
        f" {error:.1f} points. Base: {spread([r['base'] for r in results])}.",
    ]
    for build in BUILDS:
        lines += ["", f"## Accuracy, {build}", ""]
        columns = list(product(WIDTHS, args.ratios))
        heads = [f"{widths} {ratio:g}" for widths, ratio in columns]
        lines.append(f"| criterion | {' | '.join(heads)} | mean |")
        lines.append(f"|---|{'---|' * (len(heads) + 1)}")
        rows = []
        for name in names:
            cells = [
                [
                    entry["accuracy"][build]
                    for result in results
                    for entry in result["accuracies"]
                    if (entry["criterion"], entry["widths"], entry["ratio"]) == (name, *column)
                ]
                for column in columns
            ]
            mean = float(np.mean(cells))
            text = " | ".join(spread(cell) for cell in cells)
            rows.append((mean, f"| `{name}` | {text} | {mean:.2f} |"))
        lines += [row for _, row in sorted(rows, reverse=True)]
    lines += ["", "## Kendall's tau between criteria, mean over groups and seeds", ""]
    lines.append(f"| | {' | '.join(f'`{name}`' for name in names)} |")
    lines.append(f"|---|{'---|' * len(names)}")
    tau = np.mean([result["tau"] for result in results], axis=0)
    for name, row in zip(names, tau, strict=True):
        lines.append(f"| `{name}` | {' | '.join(f'{value:.2f}' for value in row)} |")
    lines += ["", "## Time, each criterion alone", ""]
    lines += ["| criterion | needs | seconds |", "|---|---|---|"]
    for name in names:
        seconds = spread([result["seconds"][name] for result in results])
        lines.append(f"| `{name}` | {criterion_class(name).needs.value} | {seconds} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


def time_resnet50(threads: int, images: int = 256, batch: int = 32) -> str:
    """Times all data-free and activation criteria together, on random images of 224 px."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    found = trace(model, (torch.randn(2, 3, 224, 224),))
    network = ScoredNetwork(model=model, groups=found.groups, layers=found.layers)
    batches: Batches = [
        (torch.randn(batch, 3, 224, 224), torch.randint(1000, (batch,)))
        for _ in range(images // batch)
    ]
    timed = {
        "data-free": [n for n, c in CRITERIA.items() if c.needs is Needs.NOTHING],
        "activations": [n for n, c in CRITERIA.items() if issubclass(c, OnActivations)],
    }
    timed["together"] = [*timed["data-free"], *timed["activations"]]
    lines = [
        f"# Time of criteria on ResNet-50, {images} images of 224 px, {threads} threads",
        "",
        "| criteria | seconds |",
        "|---|---|",
    ]
    for kind, names in timed.items():
        began = time.perf_counter()
        score_channels(names, network, batches, np.random.default_rng(0))
        seconds = time.perf_counter() - began
        lines.append(f"| {kind}: {', '.join(names)} | {seconds:.1f} |")
    return "\n".join(lines)


def seeding(names: Sequence[str], seeds: int) -> str:
    """Returns the hypervolume of genetic searches on digits, by the criterion of their seeds."""
    path = SPACE.with_name("digits_resnet.toml")
    lines = [
        f"# What `genetic` gains from a criterion as a seed: digits, {seeds} seeds, 96 trials",
        "",
        "Hypervolume of the front of loss against MACs over all sizes, mean ± standard deviation.",
        "",
        "| criterion | hypervolume |",
        "|---|---|",
    ]
    for name in names:
        volumes = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                run = Session.create(
                    Path(folder, "run"),
                    space_file=load_space_file(path),
                    space_folder=path.parent,
                    search=SearchConfig(strategy="genetic", seed=seed, criterion=name),
                    request=BudgetRequest.of(flops="1%..100%"),
                )
                run.search(Limits(trials=96))
                front = run.study.front()
                volumes.append(front.hypervolume(reference_point(run.study, front)))
                run.close()
        deviation = np.std(volumes, ddof=1) if seeds > 1 else 0.0
        lines.append(f"| `{name}` | {np.mean(volumes):.4f} ± {deviation:.4f} |")
    return "\n".join(lines)


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    alone = [name for name, kind in CRITERIA.items() if kind.needs is not Needs.TRAINING]
    parser.add_argument("--criteria", default=",".join(alone), help="names, with commas")
    parser.add_argument("--ratios", type=numbers, default="0.7,0.5,0.3", help="MACs ratios")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000, help="search images scored")
    parser.add_argument("--calibration", type=int, default=512, help="images for the criteria")
    parser.add_argument("--search-list", type=Path, help="lists images that the weights never saw")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--verbose", action="store_true", help="print each figure as it comes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resnet50", action="store_true", help="only time criteria on ResNet-50")
    parser.add_argument("--seeding", action="store_true", help="only what `genetic` gains")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.resnet50:
        print(time_resnet50(args.threads))
        return
    names = [name for name in args.criteria.split(",") if criterion_class(name)]
    if args.seeding:
        print(seeding(names, args.seeds))
        return
    file = load_space_file(SPACE)
    if args.search_list:
        data = file.data.model_copy(update={"search": str(args.search_list.resolve())})
        file = file.model_copy(update={"data": data})
    subject = load_subject(file, SPACE.parent)
    results = [measure(subject, names, args.ratios, seed, args) for seed in range(args.seeds)]
    if args.json:
        args.json.write_text(json.dumps(results))
    print(report(results, names, args))


if __name__ == "__main__":
    main()
