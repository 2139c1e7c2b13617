"""The latency profile: a model measured, fitted and checked on this device, and cached."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn

from evosearch.files import cache_folder, writing
from evosearch.latency.fitting import fit_latency, predict
from evosearch.latency.journal import Journal
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyModel, stepped
from evosearch.latency.steps import find_steps
from evosearch.seeding import Stream, generator
from evosearch.space.space import SearchSpace, Widths
from evosearch.stages import Countdown, OnStage
from evosearch.study.identity import VERSIONS, Part
from evosearch.study.timing import Timing
from evosearch.surgery.discovery import Discovery

FITTED, VALIDATED = 40, 20
"""Random compact networks that the model is fitted on, and others that it is checked on."""
SMALLEST, SPREAD = 0.1, 0.5
"""A random network keeps a share of all channels from this to 1; its groups' shares differ by
so many standard deviations of the logarithm."""


def profile(meter: Meter, on_stage: OnStage = lambda _: None) -> LatencyModel:
    """Returns the latency model of a space under the meter's conditions, measured once.

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
    on_stage("widths at which latency falls")
    steps = find_steps(meter, journal)
    space = stepped(meter.discovery.space, steps)
    rng = generator(0, Stream.LATENCY, "networks")
    widths = np.stack([random_widths(space, rng) for _ in range(FITTED + VALIDATED)])
    timings = []
    countdown = Countdown(on_stage, "latency of random networks", len(widths), "networks")
    for number, row in enumerate(widths, 1):
        timings.append(_timed(meter, journal, space, row))
        countdown.done(number)
    base = int(1e12 * np.median([timing.base_seconds for timing in timings]))
    ratios = np.array([timing.ratio for timing in timings])
    kinds = layer_kinds(meter.model, meter.discovery)
    terms = fit_latency(space, kinds, widths[:FITTED], ratios[:FITTED], base)
    errors = np.abs(predict(terms, space, widths[FITTED:]) / base / ratios[FITTED:] - 1)
    model = LatencyModel(
        space_digest=meter.discovery.space.digest,
        conditions=meter.conditions,
        base_picoseconds=base,
        terms=terms,
        steps=steps,
        fitted=FITTED,
        validated=VALIDATED,
        median_error=float(np.median(errors)),
        worst_error=float(errors.max()),
        noise=float(np.median([timing.spread for timing in timings])),
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


def _timed(meter: Meter, journal: Journal, space: SearchSpace, widths: Widths) -> Timing:
    scores = {group.name: -np.arange(group.size) for group in space.groups}
    mask = space.top_channels(widths, scores)
    return journal.timing(f"network {widths.tolist()}", lambda: meter.time(mask))


def _cached(meter: Meter) -> Path:
    """Returns where a profile is kept: by conditions, space, and what the network computes."""
    settings = {"conditions": asdict(meter.conditions), "space": meter.discovery.space.digest}
    key = meter.identity.key(Part.GRAPH, *VERSIONS, settings=settings)
    return cache_folder() / "latency" / f"{key}.json"
