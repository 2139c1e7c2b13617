"""The page of a comparison at equal training cost: a table for each size and length."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from evosearch.run.references import GLOBAL
from paired import Difference, spread


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finished network.

    Attributes:
        space: name of the space file.
        ratio: the budget, as a share of the base network's MACs.
        worth: what training may cost, in epochs of distilling a network of that size.
        method: that gave the network.
        seed: of the search, of order and of augmentation.
        images: in an epoch.
        elastic: epochs of elastic training.
        epochs: of distillation; of finals, those of the whole training.
        cost: of all training, as a share of what it may cost.
        scoring: what scoring the candidates took, likewise.
        macs: share of the base network's that is left.
        start: accuracy on test before distillation, in percent; None where it was not asked.
        search: accuracy on the search split, in percent.
        test: accuracy on test, in percent.
        seconds: that all of it took.
        commit: of the code.
    """

    space: str
    ratio: float
    worth: int
    method: str
    seed: int
    images: int
    elastic: int
    epochs: int
    cost: float
    scoring: float
    macs: float
    start: float | None
    search: float
    test: float
    seconds: float
    commit: str

    @property
    def key(self) -> tuple[str, float, int, str, int]:
        """What tells the row from every other."""
        return self.space, self.ratio, self.worth, self.method, self.seed

    @property
    def setting(self) -> tuple[str, int, float]:
        """What it can be compared with: the same space, cost and size."""
        return self.space, self.worth, self.ratio


def page(rows: Sequence[Row], hardware: str) -> str:
    """Returns the rows as a Markdown page."""
    commits = sorted({row.commit for row in rows})
    images = sorted({row.images for row in rows})
    lines = [
        f"# Finished networks at equal training cost, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{hardware}; one thread, Python {platform.python_version()}, torch {torch.__version__};"
        f" code of {', '.join(commits)}. Made by `scripts/bench_equal.py`. An epoch is"
        f" {', '.join(map(str, images))} images.",
        "",
        "All networks of a table may cost the same training, in image-MACs: so many epochs of",
        "distilling a network of that size (forward and backward through it, forward through the",
        "base network). Of that, elastic weights take about a fifth before the search, and finals",
        "train all their plans for it. *Cost* is what was spent of it, as epochs are whole;",
        "*scoring* is what the search's candidates took beside, on the same scale. `global` and",
        "`uniform` are plans without a search, built as searched ones are. *From scratch* has the",
        "global plan's widths and initial weights, and the same teacher. The training of the base",
        "network is nobody's cost. *Minus global* is the mean of the differences on test at the",
        "same seeds, with Student's 95 % interval over the seeds, uncorrected for how many",
        "methods there are.",
    ]
    for setting in sorted({row.setting for row in rows}, key=lambda s: (s[0], s[1], -s[2])):
        space, worth, ratio = setting
        lines += ["", f"## {space}, {ratio:.0%} of the MACs, {worth} epochs' worth", ""]
        lines += _table([row for row in rows if row.setting == setting])
    return "\n".join(lines) + "\n"


def minus_global(own: Sequence[Row], reference: Sequence[Row]) -> Difference:
    """Returns how much better a method is on test, at the seeds that both have."""
    return Difference.of({r.seed: r.test for r in own}, {r.seed: r.test for r in reference})


def _table(rows: Sequence[Row]) -> list[str]:
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(row)
    seeds = {row.seed for row in methods.get(GLOBAL, ())}
    lines = [
        "| method | finished, % of test (seeds) | minus global | before distillation, % | cost |"
        " scoring | elastic + distillation, epochs | MACs, % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(methods, key=lambda m: -statistics.mean(r.test for r in methods[m])):
        own = methods[name]
        starts = [row.start for row in own if row.start is not None]
        is_paired = name != GLOBAL and seeds & {row.seed for row in own}
        gain = minus_global(own, methods[GLOBAL]) if is_paired else ""
        lines.append(
            f"| {name} | {spread([r.test for r in own])} ({len(own)}) | {gain}"
            f" | {spread(starts) if starts else ''} | {statistics.mean(r.cost for r in own):.2f}"
            f" | {statistics.mean(r.scoring for r in own):.2f}"
            f" | {own[0].elastic} + {own[0].epochs}"
            f" | {100 * statistics.mean(r.macs for r in own):.1f} |"
        )
    return lines
