"""The layers that lose accuracy in int8: each quantized alone, the others in float."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from evosearch.data.splits import SearchSplit
from evosearch.export.onnxfile import OnnxNetwork
from evosearch.export.quantized import LayerLoss
from evosearch.export.quantizing import Quantizable, quantize
from evosearch.seeding import Stream, generator
from evosearch.stages import Countdown, OnStage
from evosearch.tasks.scoring import image_scores
from evosearch.tasks.task import Task

IMAGES = 512
"""Search images that each layer is judged on, at most."""
BATCHES = 2
"""Batches of calibration images that each is quantized with, at most."""
SECONDS = 300.0
"""After which no further layer is tried."""


def layer_losses(
    found: Quantizable,
    modules: Sequence[str],
    images: Sequence[Tensor],
    split: SearchSplit,
    task: Task,
    threads: int,
    on_stage: OnStage,
) -> tuple[LayerLoss, ...]:
    """Returns what each layer loses by itself, the one that loses most first.

    Args:
        found: the float network.
        modules: of the layers, in order; as many are tried as there is time for.
        images: batches that activations are calibrated on.
        split: where the network lost accuracy.
        task: what it is judged by.
        threads: of ONNX Runtime.
        on_stage: told how far it is.
    """
    order = generator(0, Stream.EVALUATION, "layers in int8").permutation(len(split))
    few = split.take(order[:IMAGES])
    whole = image_scores(OnnxNetwork(found.path, threads), few, task=task)
    losses, began = [], time.monotonic()
    countdown = Countdown(on_stage, "layers that lose in int8", len(modules), "layers")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "one.onnx"
        for number, module in enumerate(modules, 1):
            others = [other for other in found.modules if other != module]
            quantize(found, path, images[:BATCHES], keep=others)
            scores = image_scores(OnnxNetwork(path, threads), few, task=task)
            metric, loss = whole.metric_above(scores).mean, scores.loss_above(whole).mean
            losses.append(LayerLoss(module=module, metric=metric, loss=loss))
            countdown.done(number)
            if time.monotonic() - began > SECONDS:
                break
    return tuple(sorted(losses, key=lambda own: own.loss, reverse=True))
