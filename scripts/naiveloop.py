"""The loop that people write to score candidates, and what makes it faster, step by step."""

import copy
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from evosearch.data.splits import Split
from evosearch.machine import device_of
from evosearch.models.precision import Layout, Precision, fastest_numerics
from evosearch.refit.folding import fold_batchnorms
from evosearch.refit.norms import recalibrate
from evosearch.run.subject import Subject
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact

Losses = NDArray[np.float64]
FIRST = 192
"""Images that all candidates are scored on."""


@final
@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to score a candidate in one process; the defaults are the naive loop."""

    maps: bool = False
    """Compaction by index maps, instead of a deep copy and torch-pruning."""
    batch: int = 256
    layout: bool = False
    """Channels last in memory, and BatchNorm folded before scoring."""
    precision: Precision = "float32"
    calibration: int = 1000
    scored: int = 5000


def steps() -> dict[str, Way]:
    """Returns what is measured one after another: each adds one measure to the one before."""
    way = Way()
    found = {"the naive loop, one thread": way}
    changes: dict[str, dict[str, Any]] = {
        "compaction by index maps": {"maps": True},
        "batches of 128": {"batch": 128},
        "channels last, BatchNorm folded": {"layout": True},
        "bfloat16, where the CPU has it": {"precision": "auto"},
        "128 images to recalibrate on": {"calibration": 128},
        f"{FIRST} images scored": {"scored": FIRST},
    }
    for name, change in changes.items():
        way = replace(way, **change)
        found[name] = way
    return found


@final
class Loop:
    """Scores masks in one process, in any of the ways."""

    def __init__(self, subject: Subject) -> None:
        """Loads images, once, to where the base network is."""
        self._model, self._discovery = subject.model.eval(), subject.discovery
        place = device_of(self._model)
        self._calibration, _ = _drawn(subject.data.calibration, place)
        self._images, self._labels = _drawn(subject.data.search, place)

    def losses(self, mask: Mask, way: Way) -> Losses:
        """Returns the loss of every image that is scored."""
        network = self.compacted(mask) if way.maps else self.pruned(mask)
        calibration, images = self._calibration[: way.calibration], self._images[: way.scored]
        layout: Layout = "channels_last" if way.layout else "contiguous"
        numerics = fastest_numerics(images.device, precision=way.precision, layout=layout)
        network, calibration = numerics.network(network), numerics.images(calibration)
        images = numerics.images(images)
        with numerics.computing(images.device), torch.inference_mode():
            batches = range(0, len(calibration), way.batch)
            recalibrate(network, [calibration[i : i + way.batch] for i in batches])
            if way.layout:
                fold_batchnorms(network, self._discovery.layers)
            batches = range(0, len(images), way.batch)
            logits = torch.cat([network(images[i : i + way.batch]).float() for i in batches])
            losses = functional.cross_entropy(logits, self._labels[: way.scored], reduction="none")
        return np.asarray(losses.double().cpu().numpy())

    def difference(self, mask: Mask) -> float:
        """Returns how far an output of evosearch's network is from torch-pruning's, at most."""
        networks = self.compacted(mask), self.pruned(mask)  # torch-pruning traces gradients
        with torch.inference_mode():
            ours, theirs = (network(self._images[:8]) for network in networks)
        return float((ours - theirs).abs().max())

    def compacted(self, mask: Mask) -> nn.Module:
        """Returns the network that evosearch's surgery gives."""
        return compact(self._model, self._discovery.space.groups, mask).eval()

    def pruned(self, mask: Mask) -> nn.Module:
        """Returns the network that torch-pruning gives."""
        network = copy.deepcopy(self._model)
        graph = torch_pruning.DependencyGraph().build_dependency(network, self._images[:1])
        for group in self._discovery.space.groups:
            dropped = np.flatnonzero(~mask[group.name]).tolist()
            module = network.get_submodule(group.name)
            cut = torch_pruning.prune_conv_out_channels
            graph.get_pruning_group(module, cut, dropped).prune()
        return network


def _drawn(split: Split, place: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns all images and labels of a split, in random order, on a device."""
    order = np.random.default_rng(0).permutation(len(split))
    images, labels = next(split.take(order).batches(len(split)))
    return images.to(place), torch.as_tensor(labels).to(place)
