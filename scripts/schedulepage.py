"""The page of a comparison of fine-tunings: a table for each setting, and what it chose."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from finetunevariants import DEFAULT
from paired import Difference, spread

Setting = tuple[str, float, int | None, int]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fine-tuned network.

    Attributes:
        space: name of the space file.
        ratio: the budget, as a share of the base network's MACs.
        images: of the train split; None is all.
        epochs: of the fine-tuning.
        seed: of all that is drawn.
        variant: its name.
        macs: share of the base network's.
        search_loss: on the search split.
        search: accuracy there, in percent.
        test: accuracy on test, in percent.
        best_epoch: the one that was kept.
        image_macs: images times MACs: of the student forward and backward, of its teacher forward.
        seconds: of the processor, for the fine-tuning.
        commit: of the code.
    """

    space: str
    ratio: float
    images: int | None
    epochs: int
    seed: int
    variant: str
    macs: float
    search_loss: float
    search: float
    test: float
    best_epoch: int
    image_macs: int
    seconds: float
    commit: str

    @property
    def setting(self) -> Setting:
        """What it can be compared with."""
        return self.space, self.ratio, self.images, self.epochs

    @property
    def key(self) -> tuple[str, float, int | None, int, int, str]:
        """What tells the row from every other."""
        return (self.space, self.ratio, self.images, self.epochs, self.seed, self.variant)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A variant beside the default, at the seeds that both have.

    Attributes:
        rows: its own.
        search: its accuracy on the search split less the default's.
        test: likewise, on test.
        seconds: the mean of its processor time as a share of the default's.
        image_macs: likewise.
    """

    rows: Sequence[Row]
    search: Difference
    test: Difference
    seconds: float
    image_macs: float


def compared(own: Sequence[Row], default: Sequence[Row]) -> Compared:
    """Returns the comparison of a variant with the default, paired by seed."""
    other = {row.seed: row for row in default}
    pairs = [(row, other[row.seed]) for row in own if row.seed in other]

    def difference(name: str) -> Difference:
        values = [{row.seed: getattr(row, name) for row in rows} for rows in (own, default)]
        return Difference.of(*values)

    return Compared(
        rows=own,
        search=difference("search"),
        test=difference("test"),
        seconds=statistics.mean(a.seconds / b.seconds for a, b in pairs),
        image_macs=statistics.mean(a.image_macs / b.image_macs for a, b in pairs),
    )


def comparisons(rows: Sequence[Row]) -> dict[str, Compared]:
    """Returns the variants of one setting, the default among them, the best on search first."""
    variants: dict[str, list[Row]] = {}
    for row in rows:
        variants.setdefault(row.variant, []).append(row)
    found = {name: compared(own, variants[DEFAULT]) for name, own in variants.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1].search.mean))


def page(rows: Sequence[Row], hardware: str) -> str:
    """Returns the rows as a Markdown page."""
    lines = [
        f"# How fine-tuning goes by default, and other ways, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{hardware}; one thread, Python {platform.python_version()}, torch {torch.__version__};"
        f" code of {', '.join(sorted({row.commit for row in rows}))}. Made by"
        " `scripts/bench_schedule.py`.",
        "",
        "One plan, global without a search, cut and compensated, is fine-tuned in every variant.",
        "The default is that of `[finetune]`: SGD, `lr = 0.05`, half a cosine, `temperature = 4`,",
        "`alpha = 0.9`, no attention transfer; a variant has what its name says in place of that.",
        "Accuracy in percent, mean ± standard deviation (seeds), of the best epoch by the loss on",
        "the search split, whose median over the seeds is *epoch*; 0 is the network before",
        "training. Differences from the default are paired by seed, in points, with",
        "Student's 95 % interval over the seeds; no correction is made for how many variants",
        "there are. Tables are in the order of the search split, which chooses; test confirms.",
        "CPU time and image-MACs (student forward and backward, teacher forward) are shares of",
        "the default's.",
    ]
    ordered = sorted(rows, key=lambda row: (row.space, row.ratio, row.images or 0, row.epochs))
    for setting in dict.fromkeys(row.setting for row in ordered):
        lines += ["", *_section([row for row in rows if row.setting == setting])]
    return "\n".join(lines) + "\n"


def _section(rows: Sequence[Row]) -> list[str]:
    first, variants = rows[0], comparisons(rows)
    images = "all train images" if first.images is None else f"{first.images:,} train images"
    lines = [
        f"## {first.space}, {100 * first.macs:.1f} % of the MACs, {first.epochs} epochs, {images}",
        "",
        "| variant | search, % | minus default | test, % | minus default | epoch | CPU"
        " | image-MACs |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, own in variants.items():
        differences = ("", "") if name == DEFAULT else (str(own.search), str(own.test))
        seeds = f"({len(own.rows)})"
        lines.append(
            f"| {name} | {spread([row.search for row in own.rows])} {seeds} | {differences[0]}"
            f" | {spread([row.test for row in own.rows])} {seeds} | {differences[1]}"
            f" | {statistics.median(row.best_epoch for row in own.rows):g}"
            f" | {own.seconds:.2f} | {own.image_macs:.2f} |"
        )
    return [*lines, "", *_verdicts(variants)]


def _verdicts(variants: Mapping[str, Compared]) -> list[str]:
    others = {name: own for name, own in variants.items() if name != DEFAULT}
    words = {"ahead": "Ahead of the default on the search split", "behind": "behind it"}
    named = {
        verdict: [
            f"{name} (on test {own.test.verdict})"
            for name, own in others.items()
            if own.search.verdict == verdict
        ]
        for verdict in words
    }
    parts = [f"{text}: {', '.join(named[verdict]) or 'none'}" for verdict, text in words.items()]
    return ["; ".join(parts) + "."]
