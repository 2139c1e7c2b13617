"""The page of a comparison of recipes: a table for each space and budget, and a verdict."""

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from paired import Difference, spread

SCRATCH = "scratch"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished network.

    Attributes:
        space: name of the space file.
        whole: epochs of a training of the whole network.
        method: a recipe, or who chose the plan that was distilled.
        budget: of the FLOPs, as written.
        seed: of splits, weights and everything drawn.
        epochs: of each training; of the distillation for plans.
        trainings: how many there were.
        cost: of all, in trainings of the whole network.
        flops: share of the whole network's that is left.
        test: accuracy in percent.
        images: of the test split.
        seconds: that training took; of plans, distillation alone.
        commit: of the code.
    """

    space: str
    whole: int
    method: str
    budget: str
    seed: int
    epochs: int
    trainings: int
    cost: float
    flops: float
    test: float
    images: int
    seconds: float
    commit: str

    @property
    def setting(self) -> tuple[str, int, str]:
        """What it can be compared with: the same space, epochs and budget."""
        return self.space, self.whole, self.budget


def page(rows: Sequence[Row], hardware: str) -> str:
    """Returns the rows as a Markdown page."""
    commits = sorted({row.commit for row in rows})
    lines = [
        f"# Recipes of training under a budget, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{hardware}; one thread, Python {platform.python_version()}, torch {torch.__version__};"
        f" code of {', '.join(commits)}. Made by `scripts/bench_recipes.py`.",
        "",
        "All begin with fresh weights, may cost what two trainings of the whole network do",
        "(image-MACs, forward once and backward twice), and are finished networks on test. *Cost*",
        "is in trainings of the whole network. Plans without a search, and `rates` (60 trials),",
        "spend one of the two on the base network, what scoring takes on the search, the rest on",
        "distillation; recipes train on labels, and what scoring their channels takes is not",
        "counted. A seed draws splits, weights and order. *Minus",
        "scratch* is the mean of the differences at the same seeds, with Student's 95 % interval",
        "over the seeds; no correction is made for how many methods there are. Seconds are of a",
        "machine with other work beside it.",
    ]
    for setting in sorted({row.setting for row in rows}, reverse=True):
        space, whole, budget = setting
        lines += ["", f"## {space}, {budget} of the FLOPs, two times {whole} epochs", ""]
        lines += _table([row for row in rows if row.setting == setting])
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row]) -> list[str]:
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(row)
    differences = {
        name: difference(own, methods[SCRATCH])
        for name, own in methods.items()
        if SCRATCH in methods and name != SCRATCH
    }
    lines = [
        "| method | test, % | minus scratch | cost | trainings x epochs | FLOPs, % | s |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(methods, key=lambda name: -_mean(methods[name])):
        own = methods[name]
        lines.append(
            f"| {name} | {spread([row.test for row in own])} ({len(own)})"
            f" | {differences.get(name, '')} | {statistics.mean(r.cost for r in own):.2f}"
            f" | {own[0].trainings} x {own[0].epochs}"
            f" | {100 * statistics.mean(r.flops for r in own):.1f}"
            f" | {spread([row.seconds for row in own], 0)} |"
        )
    return [*lines, "", *_verdicts(differences)]


def difference(own: Sequence[Row], scratch: Sequence[Row]) -> Difference:
    """Returns how much better a method is than scratch, at the seeds that both have."""
    tests = [{row.seed: row.test for row in rows} for rows in (own, scratch)]
    return Difference.of(*tests)


def _verdicts(differences: Mapping[str, Difference]) -> list[str]:
    if any(math.isinf(d.half) for d in differences.values()):
        above = [name for name, d in differences.items() if d.mean > 0]
        return [f"Of a single seed there is no interval. Above scratch: {_named(above)}."]
    words = {"ahead": "Ahead of scratch", "level": "Cannot be told from it", "behind": "Behind it"}
    named = {
        verdict: [n for n, d in differences.items() if d.verdict == verdict] for verdict in words
    }
    return [" ".join(f"{words[v]}: {_named(n)}." for v, n in named.items())]


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


def _mean(rows: Sequence[Row]) -> float:
    return statistics.mean(row.test for row in rows)
