"""The frozen prefix of a network in training: the first layers, from when they no longer move."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from evosearch.calling import Inputs, call
from evosearch.data.labels import Labels
from evosearch.data.splits import TrainSplit
from evosearch.machine import device_of
from evosearch.training.cutpoints import CutPoint, Graph
from evosearch.training.parts import Host, Moment, Part

SMOOTHED = 3
"""Epochs that changes are averaged over."""
LARGEST_KEPT = 2**28
"""Elements of the outputs that are kept, at most: 1 GiB. Beyond, the prefix runs in every step."""
BATCH = 256
"""Images in one pass of the prefix where its outputs are kept."""


@final
class FrozenPrefix(Part):
    """Freezes the first layers of a network once they rest, and keeps what they put out.

    Learn & Drop (Cruciata et al. 2024, arXiv 2604.23403) by its abstract: a layer whose parameters
    no longer change stops learning, and training no longer visits it. Ours: a layer rests when
    `|W(e) - W(e-1)| / |W(e-1)|`, the mean over 3 epochs, is under a share of what it was in the
    first; the longest prefix that ends in a cut point and whose layers all rest is put into
    evaluation mode. Without augmentation its outputs are computed once, and the epochs that
    follow begin there; with it, the backward pass through it is saved.

    It is what the objective calls in place of the network. The network must not be cut.
    """

    def __init__(self, model: nn.Module, train: TrainSplit, share: float) -> None:
        """Finds the cut points.

        Args:
            model: what is trained.
            train: what it is trained on.
            share: of its first change, under which a layer rests.

        Raises:
            InputError: the network's code cannot be followed.
        """
        self._model, self._train, self._share = model, train, share
        self._graph = Graph(model)
        self._changes: dict[str, list[float]] = {}
        self._before: dict[str, Tensor] = {}
        self._point: CutPoint | None = None
        self._keeps = False
        self._held: list[nn.Parameter] = []

    @property
    def frozen(self) -> tuple[str, ...]:
        """The layers that are frozen, in execution order."""
        return () if self._point is None else self._point.layers

    def __call__(self, images: Inputs) -> Any:
        """Returns what the network makes of a batch of the training."""
        if self._point is None:
            return call(self._model, images)
        if self._keeps:
            return call(self._after, images)
        with torch.no_grad():
            held = call(self._first, images)
        return self._after(held)

    def joined(self, training: Host) -> None:
        """See `Part.joined`."""
        self._training = training

    def before_step(self, moment: Moment) -> None:
        """Measures what the last epoch changed, and freezes what rests."""
        if not moment.begins_epoch:
            return
        now = self._weights()
        for name, weight in now.items():
            if (before := self._before.get(name)) is not None:
                norm = float(before.norm())
                change = float((weight - before).norm()) / norm if norm else 0.0
                self._changes.setdefault(name, []).append(change)
        self._before = now
        resting = [p for p in self._graph.points if all(map(self._rests, p.layers))]
        if resting and resting[-1] != self._point:
            self._freeze(resting[-1])
        elif self._point is not None:
            self._to_rest(self._point)

    def _rests(self, layer: str) -> bool:
        if layer in self.frozen:
            return True
        first, *later = self._changes.get(layer, [0.0])
        mean = sum(later[-SMOOTHED:]) / SMOOTHED
        return len(later) >= SMOOTHED and mean <= self._share * first

    def _weights(self) -> dict[str, Tensor]:
        """Returns a copy of the parameters of each layer in one row, of those not yet frozen."""
        if not self._graph.points:
            return {}
        return {
            name: torch.cat([weight.detach().flatten() for weight in self._owned(name)])
            for name in self._graph.points[-1].layers
            if name not in self.frozen
        }

    def _owned(self, layer: str) -> list[nn.Parameter]:
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        if layer in parameters:
            return [parameters[layer]]
        return list(self._model.get_submodule(layer).parameters())

    def _freeze(self, point: CutPoint) -> None:
        self._point = point
        self._first, self._after = self._graph.before(point), self._graph.after(point)
        self._to_rest(point)
        if self._train.augmentation.changes:
            return
        place, count = device_of(self._model), len(self._train)
        with torch.no_grad():
            one = call(self._first, self._train.images[:1].to(place))
            self._keeps = isinstance(one, Tensor) and count * one.numel() <= LARGEST_KEPT
            if self._keeps:
                batches = (images.to(place) for images, _ in self._train.batches(BATCH))
                kept = torch.cat([call(self._first, images).cpu() for images in batches])
                self._training.learn_from(Kept(kept, self._train.labels))

    def _to_rest(self, point: CutPoint) -> None:
        """Puts the frozen modules into evaluation mode, and lets nothing move their weights."""
        for name in point.modules:
            self._model.get_submodule(name).eval()
        moving = [w for layer in point.layers for w in self._owned(layer) if w.requires_grad]
        for weight in moving:
            weight.requires_grad_(False).grad = None
        self._held += moving

    def release(self) -> None:
        """Lets all weights take gradients again; to be called when training has ended."""
        for weight in self._held:
            weight.requires_grad_(True)

    def state(self) -> dict[str, Any]:
        """See `Part.state`."""
        return {
            "changes": self._changes,
            "before": self._before,
            "point": None if self._point is None else self._point.name,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Part.restore`; outputs that were kept are computed anew."""
        self._changes = {name: list(own) for name, own in state["changes"].items()}
        self._before = state["before"]
        for point in self._graph.points:
            if point.name == state["point"]:
                self._freeze(point)


@final
class Kept:
    """What a prefix put out for the images of a train split, and their labels."""

    thread_safe = True

    def __init__(self, outputs: Tensor, labels: Labels) -> None:
        """Takes outputs `(images, ...)`, and labels."""
        self._outputs, self._labels = outputs, labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, positions: Tensor, rng: torch.Generator) -> tuple[Tensor, Labels]:  # noqa: ARG002
        """See `TrainSplit.batch`; nothing is drawn."""
        return self._outputs[positions], self._labels[positions]
