"""The page of a quality benchmark: tables, a picture, and the rows for the README."""

import platform
import statistics
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student

from quality.methods import BASE, METHODS, OURS, RIVALS, TUNED, UNTUNED
from quality.results import Row

SEARCHED, UNSEARCHED = "rates", "global"
ADDED_STAGES = ("compensated", *TUNED)
STAGES = (*UNTUNED, *TUNED)
PACKAGES = ("evosearch", "torch", "torch-pruning", "optuna", "deap")
COLOURS = {
    "uniform": "tab:green",
    "global": "tab:olive",
    "layerwise": "tab:purple",
    "genetic": "tab:red",
    "rates": "tab:blue",
}
"""Of evosearch's strategies; dashed where only inner channels may go."""
HEAD_RATIO = 0.5
HEAD_METHODS = ("tp-l1filter-uniform", "uniform-inner", "layerwise", "genetic", "rates")
"""What the README shows beside the base network and torch-pruning's best."""
TEXT = """\
Test accuracy in percent, mean ± standard deviation (n seeds); one figure's standard error over
10,000 images is at most 0.5 points. A cell without ± is of one seed, or of a method that draws
nothing. Cells that were not measured are empty. Test accuracy chose nothing.

- **raw**: the base network without the channels. **recalibrated**: BatchNorm statistics measured
  again on the calibration images. **compensated**: the kept weights refitted on those
  images too, which torch-pruning has no counterpart of.
- **labels**, **distill**: the same 3 epochs of fine-tuning for all, with the optimizer, learning
  rate, batch size and, for `distill`, temperature and weight of the space file; on labels alone,
  or on the base network's outputs too. evosearch's networks start compensated, torch-pruning's
  recalibrated. The best epoch is chosen on the search split.
- **MACs**: share that is left. Every method gives the largest network of its kind at or under the
  ratio; plans of one width for all are coarse.
- **choosing**: seconds to the channels; evosearch's include loading and proving
  the space and all statistics. **evaluations**: networks scored on the 5,000 search images for it.
- `tp-...`: torch-pruning, its criteria at their defaults (`l1filter`: the L1 norm of the filters
  alone) in its uniform, global and isomorphic scopes; Taylor and Hessian on 1,000 train images
  that the seed draws. It cuts inside residual blocks only: on the stream, with its padded
  shortcuts, it gives networks that run and compute something else. Each of its networks was
  checked against the proven compaction of the same channels. The groups inside blocks are all
  isomorphic, so that scope is the global one here.
- `...-inner`: evosearch with the same channels to cut; without it, the first stage's stream too.
  `uniform` and `global` are plans without a search, on the two-step criterion.
"""


def write_page(rows: Sequence[Row], path: Path, hardware: str) -> None:
    """Writes the page in Markdown, and a picture of the same name beside it.

    Args:
        rows: what was measured, with the packages that are installed here.
        path: of the page.
        hardware: what it was measured on.
    """
    picture = path.with_suffix(".png")
    networks = list(dict.fromkeys(row.network for row in rows))
    plot(rows, networks, picture)
    lines = [
        f"# Networks cut by evosearch and by torch-pruning, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{', '.join(networks)} on JPEG-coded CIFAR-10; {hardware}; {_versions()}.",
        "",
        "```",
        "EVOSEARCH_DATA=DIR .venv/bin/python scripts/bench_quality.py measure --results FILE \\",
        "    --runs DIR --network NETWORK --space FILE --finetune none labels distill",
        "```",
        "",
        "The space file is that of `search_spaces/`, with `search` the list of the 5,000 training"
        " images that the weights never saw.",
        "",
        TEXT,
        f"![test accuracy against MACs]({picture.name})",
        "",
        "Grey: all of torch-pruning's methods; black: the best of them at each ratio; dashed:"
        " evosearch with the same channels to cut. Bars: one standard deviation over seeds.",
    ]
    for network in networks:
        own = [row for row in rows if row.network == network]
        for base in (row for row in own if row.method == BASE):
            lines += ["", f"## {network}: {base.test:.2f} % uncut"]
        ratios = sorted({row.ratio for row in own if row.method != BASE}, reverse=True)
        lines += ["", "### What the search adds", "", *added(own, ratios)]
        for ratio in ratios:
            lines += ["", f"### {network} at {ratio:g} of the MACs", "", *table(own, ratio)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def added(rows: Sequence[Row], ratios: Sequence[float]) -> list[str]:
    """Returns how much better `rates` is than `global` without a search, seed by seed."""
    lines = [f"| MACs | {' | '.join(ADDED_STAGES)} |", f"|---|{'--:|' * len(ADDED_STAGES)}"]
    for ratio in ratios:
        cells = []
        for stage in ADDED_STAGES:
            of = {
                method: {r.seed: r.test for r in rows if (r.method, r.ratio, r.stage) == key}
                for method in (SEARCHED, UNSEARCHED)
                for key in [(method, ratio, stage)]
            }
            seeds = sorted(of[SEARCHED].keys() & of[UNSEARCHED].keys())
            cells.append(difference([of[SEARCHED][s] - of[UNSEARCHED][s] for s in seeds]))
        lines.append(f"| {ratio:.0%} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"Points of test accuracy, `{SEARCHED}` minus `{UNSEARCHED}` at the same seed: mean,"
        " Student's 95 % interval of it over the seeds, and their number. The test images are the"
        " same for all.",
    ]


def difference(points: Sequence[float]) -> str:
    """Returns "mean (low to high; n seeds)"; no interval for one; "" for none."""
    if len(points) < 2:
        return "".join(f"{point:+.2f} (1 seed)" for point in points)
    mean = statistics.mean(points)
    half = student.ppf(0.975, len(points) - 1) * statistics.stdev(points) / len(points) ** 0.5
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f}; {len(points)} seeds)"


def headline(rows: Sequence[Row]) -> str:
    """Returns the most telling rows at half the MACs, network by network."""
    lines = []
    for network in dict.fromkeys(row.network for row in rows):
        own = [row for row in rows if row.network == network]
        shown = {*HEAD_METHODS, *(_best(own, HEAD_RATIO, stage) for stage in STAGES)}
        lines += [*(f"{network}, {row.test:.2f} % uncut" for row in own if row.method == BASE), ""]
        lines += table([row for row in own if row.method in shown], HEAD_RATIO)
        lines.append("")
    return "\n".join(lines)


def table(rows: Sequence[Row], ratio: float) -> list[str]:
    """Returns one network's rows at a ratio as a Markdown table, a line for each method."""
    lines = [
        f"| method | MACs, % | {' | '.join(STAGES)} | choosing, s | evaluations |",
        f"|---|---|{'---|' * len(STAGES)}---|---|",
    ]
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (list(METHODS).index(row.method), row.trials)):
        if row.ratio == ratio and row.method != BASE:
            found[row.label].append(row)
    for label, own in found.items():
        cells = [spread([r.test for r in own if r.stage == stage], 2) for stage in STAGES]
        # What chose the channels counts once for each draw, not for each stage.
        plans = {row.seed if METHODS[row.method].draws else 0: row for row in own}.values()
        macs = spread([100 * row.macs for row in plans], 1)
        seconds = spread([row.seconds for row in plans if row.seconds is not None], 1)
        evaluations = spread([row.evaluations for row in plans], 0)
        lines.append(f"| {label} | {macs} | {' | '.join(cells)} | {seconds} | {evaluations} |")
    return lines


def spread(values: Sequence[float], digits: int) -> str:
    """Returns "mean ± standard deviation (n)"; the mean alone for one value; "" for none."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.{digits}f} ({len(values)})"


def plot(rows: Sequence[Row], networks: Sequence[str], path: Path) -> None:
    """Draws mean accuracy against the MACs: without training, and after distillation.

    Grey are all of torch-pruning's methods; black joins the best of them at each ratio. Bars are
    one standard deviation over seeds.
    """
    mpl.use("Agg")
    figure = Figure(figsize=(11, 4.5 * len(networks)), dpi=150, layout="constrained")
    grid = figure.subplots(len(networks), 2, squeeze=False)
    for network, line in zip(networks, grid, strict=True):
        own = [row for row in rows if row.network == network]
        ratios = [100 * row.ratio for row in own if row.method != BASE]
        for axes, before, after, title in (
            (line[0], "recalibrated", "compensated", "no training"),
            (line[1], "distill", "distill", "distilled 3 epochs"),
        ):
            _draw(axes, own, before, after)
            axes.set_title(f"{network}, {title}", fontsize=10)
            axes.set_xlim(min(ratios, default=50) - 5, max(ratios, default=50) + 5)
            axes.set_xlabel("MACs, % of the base network")
            axes.set_ylabel("test accuracy, %")
            axes.grid(alpha=0.3)
        drawn = [axes.get_legend_handles_labels() for axes in line]
        named = {name: handle for own in drawn for handle, name in zip(*own, strict=True)}
        place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "fontsize": 8}
        line[1].legend(named.values(), named.keys(), **place)
    figure.savefig(path, format="png")


def _draw(axes: Axes, rows: Sequence[Row], before: str, after: str) -> None:
    """Draws torch-pruning after one stage and evosearch after another."""
    rivals = [row for row in rows if row.method in RIVALS and row.stage == before]
    for label in dict.fromkeys(row.label for row in rivals):
        own = [row for row in rivals if row.label == label]
        _line(axes, own, color="0.8", linewidth=0.8, marker=".", zorder=1)
    best = {row.ratio: _best(rivals, row.ratio, before) for row in rivals}
    chosen = [row for row in rivals if row.method == best[row.ratio]]
    _line(axes, chosen, color="black", marker="s", label="torch-pruning, best at each ratio")
    ours = [row for row in rows if row.method in OURS and row.stage == after]
    for label in dict.fromkeys(row.label for row in ours):
        own = [row for row in ours if row.label == label]
        method = METHODS[own[0].method]
        style = {
            "color": COLOURS[str(method.strategy)],
            "linestyle": "--" if method.inner else "-",
        }
        _line(axes, own, marker="o", label=label, **style)
    for row in rows:
        if row.method == BASE:
            axes.axhline(row.test, color="black", linewidth=0.8, linestyle=":", label="uncut")


def _line(axes: Axes, rows: Sequence[Row], **style: object) -> None:
    if not rows:
        return
    points = [[row for row in rows if row.ratio == r] for r in sorted({r.ratio for r in rows})]
    tests = [[row.test for row in own] for own in points]
    axes.errorbar(
        [100 * statistics.mean(row.macs for row in own) for own in points],
        [statistics.mean(values) for values in tests],
        yerr=[statistics.stdev(values) if len(values) > 1 else 0.0 for values in tests],
        capsize=2,
        markersize=4,
        **style,  # type: ignore[arg-type]
    )


def _best(rows: Sequence[Row], ratio: float, stage: str) -> str | None:
    """Returns torch-pruning's method of highest mean test accuracy, where there is any."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.method in RIVALS and (row.ratio, row.stage) == (ratio, stage):
            found[row.method].append(row.test)
    return max(found, key=lambda name: statistics.mean(found[name]), default=None)


def _versions() -> str:
    named = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            named.append(f"{package} not installed")
    return ", ".join(named)
