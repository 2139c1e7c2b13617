"""The latency profile: a model measured, fitted and checked on this device, and cached."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from evosearch.files import cache_folder, writing
from evosearch.latency.fitting import fit_latency, predict
from evosearch.latency.journal import Journal
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyModel, stepped
from evosearch.latency.steps import find_steps
from evosearch.seeding import Stream, generator
from evosearch.space.costform import LatencyTerm
from evosearch.space.space import SearchSpace, Widths
from evosearch.stages import Countdown, OnStage
from evosearch.study.identity import VERSIONS, Part
from evosearch.study.timing import Timing
from evosearch.surgery.discovery import Discovery

FIRST, MORE, MOST = 12, 8, 44
"""Random compact networks that the model is fitted on: at first, that join at a time, at most."""
CLOSE = 0.02
"""No others join where those that joined last were predicted as closely, by the median error, or
as half the noise: as closely as they are known."""
VALIDATED = 12
"""Further networks that the finished model is checked on: what ended the fit flatters it."""
SMALLEST, SPREAD = 0.1, 0.5
"""A random network keeps a share of all channels from this to 1; its groups' shares differ by
so many standard deviations of the logarithm."""


def profile(meter: Meter, on_stage: OnStage = lambda _: None) -> LatencyModel:
    """Returns the latency model of a space under the meter's conditions, measured once.

    Networks are timed a few at a time, and each few are predicted before they join the fit: it
    ends where that was right.

    What is measured is kept at once: an interrupted profile goes on where it stopped, and a
    finished one is read back.

    Args:
        meter: times networks.
        on_stage: told what is being done.

    Raises:
        StorageError: the cache cannot be written.
    """
    path = _cached(meter)
    if path.is_file():
        return LatencyModel.load(path)
    journal = Journal(path.with_suffix(".jsonl"))
    steps = find_steps(meter, journal, on_stage)
    space = stepped(meter.discovery.space, steps)
    rng = generator(0, Stream.LATENCY, "networks")
    widths = np.stack([random_widths(space, rng) for _ in range(MOST + VALIDATED)])
    kinds = layer_kinds(meter.model, meter.discovery)
    timed = _Timed(meter, journal, space)
    countdown = Countdown(on_stage, "latency of random networks", len(widths), "networks at most")

    def measure(rows: Widths) -> None:
        for row in rows:
            timed.add(row)
            countdown.done(len(timed.timings))

    measure(widths[:FIRST])
    fitted, error = FIRST, np.inf
    while fitted < MOST and error > max(CLOSE, timed.noise / 2):
        base = timed.base
        terms = fit_latency(space, kinds, timed.widths, timed.ratios, base)
        measure(widths[fitted : fitted + MORE])
        error = float(np.median(timed.errors(terms, base, MORE)))
        fitted += MORE
    base = timed.base
    terms = fit_latency(space, kinds, timed.widths, timed.ratios, base)
    measure(widths[MOST:])
    errors = timed.errors(terms, base, VALIDATED)
    model = LatencyModel(
        space_digest=meter.discovery.space.digest,
        conditions=meter.bench.conditions,
        base_picoseconds=base,
        terms=terms,
        steps=steps,
        fitted=fitted,
        validated=VALIDATED,
        median_error=float(np.median(errors)),
        worst_error=float(errors.max()),
        noise=timed.noise,
    )
    with writing(path):
        model.save(path)
    journal.delete()
    return model


def layer_kinds(model: nn.Module, discovery: Discovery) -> dict[str, str]:
    """Returns the kind of every layer: of one kernel, on maps of one size, grouped or not."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return {
        layer.module: "{} kernel, {} positions{}".format(
            "x".join(map(str, shapes[layer.weight][2:])) or "no",
            layer.positions,
            ", grouped" if layer.groups > 1 else "",
        )
        for layer in discovery.layers
    }


def random_widths(space: SearchSpace, rng: np.random.Generator) -> Widths:
    """Returns legal widths of a random network, from small to nearly whole, `(groups,)`."""
    share = rng.uniform(SMALLEST, 1.0)
    widths = []
    for group in space.groups:
        legal = np.array(group.legal_widths())
        wanted = group.size * min(1.0, share * float(np.exp(rng.normal(scale=SPREAD))))
        widths.append(legal[np.abs(legal - wanted).argmin()])
    return np.array(widths, dtype=np.int64)


@final
class _Timed:
    """The networks that were timed so far."""

    def __init__(self, meter: Meter, journal: Journal, space: SearchSpace) -> None:
        self._meter, self._journal, self._space = meter, journal, space
        self._rows: list[Widths] = []
        self.timings: list[Timing] = []

    def add(self, widths: Widths) -> None:
        """Times one more network, or reads what an interrupted profile timed."""
        scores = {group.name: -np.arange(group.size) for group in self._space.groups}
        mask = self._space.top_channels(widths, scores)
        key = f"network {widths.tolist()}"
        self.timings.append(self._journal.timing(key, lambda: self._meter.time(mask)))
        self._rows.append(widths)

    @property
    def widths(self) -> Widths:
        return np.stack(self._rows)

    @property
    def ratios(self) -> NDArray[np.float64]:
        return np.array([timing.ratio for timing in self.timings])

    @property
    def base(self) -> int:
        """Picoseconds of the base network."""
        return int(1e12 * np.median([timing.base_seconds for timing in self.timings]))

    @property
    def noise(self) -> float:
        return float(np.median([timing.spread for timing in self.timings]))

    def errors(self, terms: Sequence[LatencyTerm], base: int, last: int) -> NDArray[np.float64]:
        """Returns by what share predictions of the last so many networks are off."""
        predicted = predict(terms, self._space, self.widths[-last:])
        return np.asarray(np.abs(predicted / base / self.ratios[-last:] - 1))


def _cached(meter: Meter) -> Path:
    """Returns where a profile is kept: by conditions, space, and what the network computes."""
    settings = {
        "conditions": asdict(meter.bench.conditions),
        "space": meter.discovery.space.digest,
    }
    key = meter.identity.key(Part.GRAPH, *VERSIONS, settings=settings)
    return cache_folder() / "latency" / f"{key}.json"
