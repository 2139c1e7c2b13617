"""The section of a card on an int8 file: what it was made with, and what it loses and saves."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, final

from evosearch.space.cost import format_time
from evosearch.study.pairedgain import PairedGain
from evosearch.study.scores import ImageScores, Score
from evosearch.study.timing import Conditions, Timing

POINT = 0.01
"""More than this lost, and the layers that lose it are looked for."""
SHOWN = 5
"""Layers that a card lists in words."""


@final
@dataclass(frozen=True, kw_only=True)
class LayerLoss:
    """What one layer loses in int8 where all others stay in float.

    Attributes:
        module: the layer's.
        metric: by how much the float network's metric is above, in [-1, 1].
        loss: by how much its own loss is above.
    """

    module: str
    metric: float
    loss: float


@final
@dataclass(frozen=True, kw_only=True)
class Lost:
    """By how much a metric falls on the same images, with a 95 % interval.

    Attributes:
        mean: in [-1, 1].
        low, high: its interval.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def between(cls, before: ImageScores, after: ImageScores) -> Self:
        """Returns what is lost: exactly for a mean over images, else by the bootstrap."""
        difference = before.metric_above(after)
        low, high = difference.interval
        if before.measure.pooled is None:
            gain = PairedGain.of(after.metrics, before.metrics)
            low, high = gain.low, gain.high
        return cls(mean=difference.mean, low=low, high=high)

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} points ({100 * self.low:.2f} to {100 * self.high:.2f})"


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of one file of a network.

    Attributes:
        search: its score on the search split.
        test: its score on the test split.
        bytes: of the file.
    """

    search: Score
    test: Score
    bytes: int


@final
@dataclass(frozen=True, kw_only=True)
class Quantized:
    """An int8 file beside the float one that it was made of.

    Attributes:
        version: of ONNX Runtime, whose quantizer it was.
        images: of the calibration split, that activations were calibrated on.
        int8: modules whose layers are computed in int8.
        kept: modules that stay in float, as was asked for.
        others: layers that stay in float, as int8 does not take their operator.
        float32: the float file; its scores are the PyTorch network's.
        quantized: the int8 file.
        lost: by how much the float network's metric is above, on the same search images.
        layers: what layers lose by themselves, where more than a point is lost.
        timing: of the int8 file, against the float one in turn.
        conditions: that it holds under.
        test_opened: how often the test split was opened for this network so far.
    """

    version: str
    images: int
    int8: tuple[str, ...]
    kept: tuple[str, ...]
    others: tuple[str, ...]
    float32: Measured
    quantized: Measured
    lost: Lost
    layers: tuple[LayerLoss, ...]
    timing: Timing
    conditions: Conditions
    test_opened: int

    def to_json(self) -> dict[str, Any]:
        """Returns it as a card has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            KeyError, TypeError: it is malformed.
        """
        measured = {
            name: Measured(
                search=Score(**entry[name]["search"]),
                test=Score(**entry[name]["test"]),
                bytes=entry[name]["bytes"],
            )
            for name in ("float32", "quantized")
        }
        read = {
            **measured,
            **{name: tuple(entry[name]) for name in ("int8", "kept", "others")},
            "layers": tuple(LayerLoss(**own) for own in entry["layers"]),
            "lost": Lost(**entry["lost"]),
            "timing": Timing(**entry["timing"]),
            "conditions": Conditions(**entry["conditions"]),
        }
        return cls(**{**entry, **read})

    def __str__(self) -> str:
        """Returns a line for people."""
        small, whole = self.quantized, self.float32
        return (
            f"int8: {small.test.metric} {small.test.accuracy_text} % on test, the float network"
            f" {whole.test.accuracy_text} %; {small.bytes / whole.bytes:.0%} of the float file's"
            f" size and {_share(self.timing)} of its time"
        )

    def lines(self) -> Iterator[str]:
        """Yields what a card says of it, in Markdown."""
        metric = self.float32.search.metric
        yield (
            f"- Quantized to int8 by ONNX Runtime {self.version}, calibrated on {self.images}"
            f" images: {_counted(self.int8)} in int8. In float: {self._in_float()}."
        )
        yield f"- On the search split int8 loses {self.lost} of {metric}, image by image."
        if self.layers:
            worst = "; ".join(
                f"{own.module} {100 * own.metric:.2f} points (loss {own.loss:+.4f})"
                for own in self.layers[:SHOWN]
            )
            tried = "" if len(self.layers) == len(self.int8) else f" {len(self.layers)} of the"
            yield (
                f"- Layers that lose it, of{tried} {_counted(self.int8)} each quantized alone:"
                f" {worst}. `--keep-float` with their names keeps them in float."
            )
        small, whole = (1e12 * s for s in (self.timing.seconds, self.timing.base_seconds))
        yield (
            f"- Latency of a batch: {format_time(small)} in int8, {_share(self.timing)} of the"
            f" float file's {format_time(whole)}, timed in turn; {self.conditions}."
        )
        yield f"- The test split was opened {self.test_opened} times."
        yield ""
        yield f"| file | search {metric} | test {metric} | bytes |"
        yield "|---|---|---|--:|"
        for name, own in (("float", self.float32), ("int8", self.quantized)):
            scores = f"{own.search.accuracy_text} | {own.test.accuracy_text}"
            yield f"| {name} | {scores} | {own.bytes:,} |"
        yield ""

    def _in_float(self) -> str:
        asked = [f"{name} (as asked for)" for name in self.kept]
        return ", ".join([*asked, *self.others]) or "no layer"


def _counted(modules: tuple[str, ...]) -> str:
    return f"{len(modules)} layer{'' if len(modules) == 1 else 's'}"


def _share(timing: Timing) -> str:
    return f"{timing.ratio:.1%} ({timing.ratio_low:.1%} to {timing.ratio_high:.1%})"
