"""Pictures of fronts: accuracy against size, with error bars; imported without torch."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evosearch.errors import InputError
from evosearch.files import replacing
from evosearch.space.resources import Resource
from evosearch.study.front import ParetoFront
from evosearch.study.networks import NamedNetwork
from evosearch.study.scores import Score
from evosearch.study.study import Study
from evosearch.study.trial import Trial

_RIVALS = ("tab:green", "tab:purple", "tab:brown")
_REFERENCES = ("tab:orange", "tab:olive", "tab:cyan")
_BASE = {"color": "black", "fmt": "*", "markersize": 11, "label": "base network"}


@final
class Picture(Figure):
    """A figure that a notebook shows; matplotlib sees to that for figures of pyplot alone."""

    def __init__(self) -> None:
        """Makes an empty one."""
        super().__init__(figsize=(8, 5), dpi=150, layout="constrained")

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def plot_front(
    study: Study, front: ParetoFront, path: Path, rivals: Mapping[str, Study] | None = None
) -> None:
    """Writes the front as a PNG file; see `front_figure`.

    Args:
        study: of the run.
        front: what to draw.
        path: of the picture, replaced where it exists.
        rivals: studies of the baselines, by name.
    """
    save_figure(front_figure(study, front, rivals), path)


def front_figure(
    study: Study, front: ParetoFront, rivals: Mapping[str, Study] | None = None
) -> Picture:
    """Returns the front as a picture.

    Dominated trials in grey, the front joined, the knee ringed, base network, references and
    baselines marked; bars are 95 % intervals of accuracy on the search split, of all but dominated
    trials and baselines. The axis of accuracy begins where the front does; what lies below is
    counted in the picture.

    Args:
        study: of the run.
        front: what to draw; its size is the horizontal axis.
        rivals: studies of the baselines, by name.
    """
    figure = Picture()
    axes = figure.add_subplot()

    others: dict[str, Sequence[NamedNetwork]] = {}

    def draw(label: str, networks: Sequence[NamedNetwork], **style: object) -> None:
        others[label] = networks
        _draw(axes, networks, front.size, study, label=label, **style)

    dominated, bare = _networks(front.dominated), {"elinewidth": 0, "capsize": 0}
    draw("dominated", dominated, color="0.75", fmt="o", markersize=3, zorder=1, **bare)
    for (name, networks), colour in zip(_references(study).items(), _REFERENCES, strict=False):
        draw(name, networks, color=colour, fmt="s", markersize=5, zorder=2)
    for (name, rival), colour in zip((rivals or {}).items(), _RIVALS, strict=False):
        members = _networks(rival.front(front.size).members)
        label = f"{name}, as many trials"
        draw(label, members, color=colour, fmt=".--", markersize=4, zorder=2, **bare)
    members = _networks(front.members)
    _draw(
        axes,
        members,
        front.size,
        study,
        color="tab:blue",
        fmt="o-",
        markersize=5,
        zorder=3,
        label="front",
    )
    if members:
        knee = NamedNetwork.of_trial(front.knee)
        axes.plot(
            _share(knee, front.size, study),
            100 * knee.search.accuracy,
            "o",
            markersize=13,
            zorder=4,
            markerfacecolor="none",
            markeredgecolor="tab:red",
            label="knee",
        )
        below = begin_at(axes, [*members, study.header.base], others)
        figure.supxlabel("\n".join(wrap(below, 130)), fontsize=7)
    _draw(axes, [study.header.base], front.size, study, **_BASE, zorder=3)
    axes.set_title(
        f"{study.header.strategy}, seed {study.header.seed}: {len(study.trials)} trials,"
        f" {len(front.members)} in the front (bars: 95 % intervals)",
        fontsize=10,
    )
    _label(axes, front.size, study.header.base.search.metric)
    return figure


def plot_comparison(fronts: Mapping[str, ParetoFront], study: Study, path: Path) -> None:
    """Writes the fronts of several runs as one PNG file.

    Args:
        fronts: by the name of the run; all in the same size.
        study: the base network is read off this one.
        path: of the picture, replaced where it exists.
    """
    figure = Picture()
    axes = figure.add_subplot()
    size = next(iter(fronts.values())).size
    for name, front in fronts.items():
        members = _networks(front.members)
        _draw(axes, members, size, study, fmt="o-", markersize=4, label=name)
    _draw(axes, [study.header.base], size, study, **_BASE)
    axes.set_title("fronts of loss against size (bars: 95 % intervals)", fontsize=10)
    _label(axes, size, study.header.base.search.metric)
    save_figure(figure, path)


def begin_at(
    axes: Axes, shown: Sequence[NamedNetwork], others: Mapping[str, Sequence[NamedNetwork]]
) -> str:
    """Has the axis of accuracy reach over some networks, and returns what lies below it.

    Args:
        axes: of the picture.
        shown: all of them are in it, with their bars.
        others: by label; those below are counted.
    """
    ends = [100 * end for network in shown for end in network.search.accuracy_interval]
    margin = 0.04 * (max(ends) - min(ends))
    lowest = min(ends) - margin
    axes.set_ylim(lowest, max(ends) + margin)
    below = {
        label: [accuracy for n in networks if (accuracy := 100 * n.search.accuracy) < lowest]
        for label, networks in others.items()
    }
    notes = [
        f"{len(found)} {label} (down to {min(found):.1f} %)"
        for label, found in below.items()
        if found
    ]
    return f"below the axis: {'; '.join(notes)}" if notes else ""


def _references(study: Study) -> dict[str, list[NamedNetwork]]:
    """Returns the networks beside the base network by what they are called."""
    named: dict[str, list[NamedNetwork]] = {}
    for network in study.header.references[1:]:
        named.setdefault(network.name, []).append(network)
    return named


def _label(axes: Axes, size: Resource, metric: str) -> None:
    axes.set_xlabel(f"{size.heading}, % of the base network")
    axes.set_ylabel(f"{metric} on the search split, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def accuracy_bars(scores: Sequence[Score]) -> list[list[float]]:
    """Returns how far the 95 % intervals of accuracies reach down and up, in points."""
    intervals = [score.accuracy_interval for score in scores]
    pairs = list(zip(scores, intervals, strict=True))
    return [
        [100 * (score.accuracy - low) for score, (low, _) in pairs],
        [100 * (high - score.accuracy) for score, (_, high) in pairs],
    ]


def _networks(trials: Sequence[Trial]) -> list[NamedNetwork]:
    return [NamedNetwork.of_trial(trial) for trial in trials]


def _share(network: NamedNetwork, size: Resource, study: Study) -> float:
    """Returns the size of a network, in percent of the base network's."""
    return 100 * size.of(network.cost) / size.of(study.header.base_cost)


def _draw(
    axes: Axes, networks: Sequence[NamedNetwork], size: Resource, study: Study, **style: object
) -> None:
    if networks:
        axes.errorbar(
            [_share(network, size, study) for network in networks],
            [100 * network.search.accuracy for network in networks],
            yerr=accuracy_bars([network.search for network in networks]),
            **{"capsize": 2, "elinewidth": 0.8, **style},  # type: ignore[arg-type]
        )
