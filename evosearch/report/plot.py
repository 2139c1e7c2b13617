"""Pictures of fronts: accuracy against size, with error bars; imported without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evosearch.errors import InputError
from evosearch.space.resources import Resource
from evosearch.study.front import ParetoFront
from evosearch.study.scores import Score
from evosearch.study.study import Study
from evosearch.study.trial import Trial

_RIVALS = ("tab:green", "tab:purple", "tab:brown")


def plot_front(
    study: Study, front: ParetoFront, path: Path, rivals: Mapping[str, Study] | None = None
) -> None:
    """Writes the front as a PNG file.

    Dominated trials in grey, the front joined, the knee ringed, base network and baselines
    marked; bars are one standard error of accuracy on the search split.

    Args:
        study: of the run.
        front: what to draw; its size is the horizontal axis.
        path: of the picture, replaced where it exists.
        rivals: studies of the baselines, by name.
    """
    mpl.use("Agg")
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    base: int = front.size.of(study.header.base_cost)

    def share(size: float) -> float:
        return 100 * size / base

    def trials(chosen: Sequence[Trial], **style: object) -> None:
        sizes = [share(front.size.of(trial.cost)) for trial in chosen]
        _draw(axes, sizes, [t.evaluation.score for t in chosen if t.evaluation], **style)

    trials(front.dominated, color="0.75", fmt="o", markersize=3, zorder=1, label="dominated")
    first, *baselines = study.header.references
    sizes = [share(front.size.of(reference.cost)) for reference in baselines]
    _draw(
        axes,
        sizes,
        [b.search for b in baselines],
        color="tab:orange",
        fmt="s",
        markersize=5,
        zorder=2,
        label="lowest-L1 uniform, recalibrated",
    )
    for (name, rival), colour in zip((rivals or {}).items(), _RIVALS, strict=False):
        members = rival.front(front.size).members
        trials(members, color=colour, fmt=".--", markersize=4, zorder=2, label=name)
    trials(front.members, color="tab:blue", fmt="o-", markersize=5, zorder=3, label="front")
    if front.members:
        knee = front.knee
        accuracy = 100 * knee.evaluation.score.accuracy if knee.evaluation else 0
        axes.plot(
            share(front.size.of(knee.cost)),
            accuracy,
            "o",
            markersize=13,
            zorder=4,
            markerfacecolor="none",
            markeredgecolor="tab:red",
            label="knee",
        )
    _draw(
        axes,
        [100],
        [first.search],
        color="black",
        fmt="*",
        markersize=11,
        zorder=3,
        label="base network",
    )
    axes.set_title(
        f"{study.header.strategy}, seed {study.header.seed}: {len(study.trials)} trials,"
        f" {len(front.members)} in the front (bars: one standard error)",
        fontsize=10,
    )
    _finish(figure, axes, front.size, path)


def plot_comparison(fronts: Mapping[str, ParetoFront], study: Study, path: Path) -> None:
    """Writes the fronts of several runs as one PNG file.

    Args:
        fronts: by the name of the run; all in the same size.
        study: the base network is read off this one.
        path: of the picture, replaced where it exists.
    """
    mpl.use("Agg")
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    size = next(iter(fronts.values())).size
    base: int = size.of(study.header.base_cost)
    for name, front in fronts.items():
        sizes = [100 * size.of(trial.cost) / base for trial in front.members]
        evaluations = [t.evaluation.score for t in front.members if t.evaluation]
        _draw(axes, sizes, evaluations, fmt="o-", markersize=4, label=name)
    first = study.header.base
    _draw(
        axes,
        [100],
        [first.search],
        color="black",
        fmt="*",
        markersize=11,
        label="base network",
    )
    axes.set_title("fronts of loss against size (bars: one standard error)", fontsize=10)
    _finish(figure, axes, size, path)


def _finish(figure: Figure, axes: Axes, size: Resource, path: Path) -> None:
    axes.set_xlabel(f"{size.heading}, % of the base network")
    axes.set_ylabel("accuracy on the search split, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _draw(axes: Axes, sizes: Sequence[float], scores: Sequence[Score], **style: object) -> None:
    if scores:
        axes.errorbar(
            sizes,
            [100 * score.accuracy for score in scores],
            yerr=[100 * score.accuracy_se for score in scores],
            capsize=2,
            elinewidth=0.8,
            **style,  # type: ignore[arg-type]
        )
