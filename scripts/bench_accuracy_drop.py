"""Measures on digits whether `--accuracy-drop` is kept: what was claimed against the test split.

For every seed, of the splits and of the search, and every drop: one search, its certificate, and
the certified network beside the base network on test. Every finished search is kept in --runs, so
the script goes on where it was stopped. Prints a Markdown page.

    .venv/bin/python scripts/bench_accuracy_drop.py [--seeds 20] [--trials 100] [--runs FOLDER]
"""

import platform
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evosearch.data.splits import load_test_split
from evosearch.engine.loop import Limits
from evosearch.machine import environment
from evosearch.run.config import SearchConfig
from evosearch.run.session import Session
from evosearch.run.spacefile import load_space_file
from evosearch.space.budget import BudgetRequest
from evosearch.space.mask import Mask
from evosearch.study.accuracy_certificate import AccuracyCertificate
from evosearch.study.scores import Difference
from evosearch.tasks.scoring import image_scores
from seededruns import options, over_seeds

SPACE = Path(__file__).parent.parent / "search_spaces" / "digits_resnet.toml"
DROPS = (0.5, 1.0)


def searched(drop: float, seed: int, trials: int, folder: Path) -> dict[str, Any]:
    """Returns what one search claims, and what became of it on test."""
    file = load_space_file(SPACE)
    file = file.model_copy(update={"data": file.data.model_copy(update={"seed": seed})})
    run = Session.create(
        folder,
        space_file=file,
        space_folder=SPACE.parent,
        search=SearchConfig(seed=seed),
        request=BudgetRequest.of(accuracy_drop=drop),
    )
    run.search(Limits(trials=trials))
    certificate = run.certify()
    assert isinstance(certificate, AccuracyCertificate)
    assert certificate.trial is not None
    chosen, smallest = run.study.trials[certificate.trial], run.study.front().smallest()
    base = run.study.header.base
    (about,) = [a.drop for a in certificate.attempts if a.trial == certificate.trial]
    result = {
        "seed": seed,
        "asked": 100 * certificate.drop,
        "claimed": 100 * (certificate.claim or 0.0),
        "certified": certificate.certified,
        "confirmation": asdict(about),
        "attempts": len(certificate.attempts),
        "flops": chosen.cost.macs / base.cost.macs,
        "test": test_drop(run, chosen.mask),
        "smallest": {
            "flops": smallest.cost.macs / base.cost.macs,
            "test": test_drop(run, smallest.mask),
        },
        "text": str(certificate),
    }
    run.close()
    return result


def test_drop(run: Session, mask: Mask) -> dict[str, float]:
    """Returns by how many points a finished network is worse than the base network on test."""
    data = run.prepared.config.space.data
    split = load_test_split(data, SPACE.parent)

    def metrics(network: nn.Module) -> Any:
        return image_scores(network, split, task=run.prepared.subject.task).metrics

    base, network = run.prepared.subject.model, run.prepared.evaluator.builder.final(mask)
    found = Difference.between(metrics(base), metrics(network))
    return {"drop": 100 * found.mean, "error": 100 * found.error}


def is_exceeded(claimed: float, test: Mapping[str, float]) -> bool:
    """Returns whether a drop on test is over what was claimed by more than its standard error."""
    return test["drop"] - claimed > test["error"]


def page(results: Mapping[float, list[dict[str, Any]]], trials: int) -> str:
    """Returns the results as a Markdown page."""
    machine = environment(torch.get_num_threads())
    seeds = len(next(iter(results.values())))
    lines = [
        f"# Whether `--accuracy-drop` is kept: digits, {seeds} seeds, {trials} trials",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine['processor']}, {torch.get_num_threads()} thread,"
        f" Python {platform.python_version()}, torch {torch.__version__}. Made by"
        " `scripts/bench_accuracy_drop.py`.",
        "",
        "A seed draws all splits, trains a base network, and searches. *Claimed* is what the",
        "certificate says: the drop asked for where it is certified, or else the one that the",
        "confirmation images do certify (one-sided, 95 % confidence). *Lost, gained*: of these",
        "images, those that the base network or the compact network alone gets right. Networks",
        "are as built, before fine-tuning. The drop on test is of 450 images, paired, ± its",
        "standard error; a claim is *exceeded* where it is over by more than that. *Smallest* is",
        "the smallest trial that keeps the drop on the search split, by a point estimate on the",
        "images that it was selected on.",
    ]
    for asked, rows in results.items():
        lines += ["", f"## `--accuracy-drop {asked}`", "", *_summary(asked, rows), ""]
        lines += [
            "| seed | claimed | certified | lost, gained | FLOPs | drop on test | exceeded |"
            " smallest: FLOPs | its drop on test | over what was asked |",
            "|--:|--:|---|--:|--:|--:|---|--:|--:|---|",
            *(_row(asked, row) for row in rows),
        ]
    return "\n".join(lines) + "\n"


def _summary(asked: float, rows: list[dict[str, Any]]) -> list[str]:
    certified = [row for row in rows if row["certified"]]
    exceeded = sum(is_exceeded(row["claimed"], row["test"]) for row in rows)
    naive = sum(is_exceeded(asked, row["smallest"]["test"]) for row in rows)
    flops = statistics.median(row["flops"] for row in rows)
    small = statistics.median(row["smallest"]["flops"] for row in rows)
    mean = statistics.mean(row["test"]["drop"] for row in rows)
    mean_small = statistics.mean(row["smallest"]["test"]["drop"] for row in rows)
    return [
        f"- Claims exceeded on test by more than its error: **{exceeded} of {len(rows)}**.",
        f"- Certified at {asked:.2f} points: {len(certified)} of {len(rows)}; claimed in the"
        f" median {statistics.median(row['claimed'] for row in rows):.2f}.",
        f"- Mean drop on test {mean:.2f} points, at {flops:.0%} of the FLOPs in the median.",
        f"- The smallest trials by the search split: {naive} of {len(rows)} are over {asked:.2f}"
        f" points by more than the error; mean drop {mean_small:.2f}, at {small:.0%}.",
    ]


def _row(asked: float, row: Mapping[str, Any]) -> str:
    test, smallest, confirmed = row["test"], row["smallest"], row["confirmation"]
    cells = (
        str(row["seed"]),
        f"{row['claimed']:.2f}",
        "yes" if row["certified"] else "no",
        f"{confirmed['lost']:g}, {confirmed['gained']:g}",
        f"{row['flops']:.1%}",
        f"{test['drop']:.2f} ± {test['error']:.2f}",
        "**yes**" if is_exceeded(row["claimed"], test) else "no",
        f"{smallest['flops']:.1%}",
        f"{smallest['test']['drop']:.2f} ± {smallest['test']['error']:.2f}",
        "yes" if is_exceeded(asked, smallest["test"]) else "no",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    given = options(__doc__, seeds=20, trials=100, runs=Path("runs/bench_accuracy_drop"))
    print(page(over_seeds(DROPS, given, searched), given.trials), end="")


if __name__ == "__main__":
    main()
