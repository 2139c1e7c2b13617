"""Channel groups: the classes of labels that have the same members."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from evosearch.space.mask import ChannelGroup, Member
from evosearch.space.space import FrozenGroup
from evosearch.surgery.tracing.graph import EVALUATION
from evosearch.surgery.tracing.layer import Product
from evosearch.surgery.tracing.walk import Walk

Axis = tuple[str, int]
_Signature = tuple[frozenset[tuple[Axis, int]], tuple[int, ...]]
"""How often a class is in each axis, and in the result of each product."""


@dataclass(frozen=True)
class _Class:
    """All places of one label class: per axis, positions in ascending order."""

    root: int
    places: dict[Axis, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Groups, frozen channels, and the label classes behind them.

    Attributes:
        groups: prunable groups in network order.
        frozen: channels that stay, by the module that writes them.
        roots: group name -> the class of each of its channels, `(size,)`.
        products: of activations, in evaluation, in execution order.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[FrozenGroup, ...]
    roots: dict[str, NDArray[np.int64]]
    products: tuple[Product, ...]


def group_channels(walk: Walk) -> Grouping:
    """Collects the classes that layers write; one that no layer writes (an input) is no group."""
    written = {
        graph: dict.fromkeys((layer.weight, layer.writes) for layer in layers)
        for graph, layers in walk.layers.items()
    }
    order = {axis: i for i, axis in enumerate(dict.fromkeys(chain(*written.values())))}
    frozen: dict[tuple[str, str], int] = defaultdict(int)
    products = [walk.labels.counts(labels) for _, labels, _ in walk.products[EVALUATION]]
    alike: dict[tuple[int, _Signature], list[_Class]] = defaultdict(list)
    for item in _classes(walk):
        writers = sorted((order[axis], axis) for axis in item.places if axis in order)
        if not writers:
            continue
        reason = walk.labels.reason(item.root)
        if reason is None and not any(axis in written[EVALUATION] for _, axis in writers):
            reason = "read in training only"
        if reason is not None:
            for _, axis in writers:
                frozen[axis[0].rpartition(".")[0], reason] += len(item.places[axis])
            continue
        places = frozenset((axis, len(places)) for axis, places in item.places.items())
        counts = tuple(elements.get(item.root, 0) for elements in products)
        alike[writers[0][0], (places, counts)].append(item)

    axes = list(order)
    used: dict[str, int] = defaultdict(int)
    groups, roots = [], {}
    for (first, _), classes in sorted(alike.items(), key=lambda entry: entry[0][0]):
        classes.sort(key=lambda item: int(item.places[axes[first]][0]))
        module = axes[first][0].rpartition(".")[0]
        used[module] += 1
        name = module if used[module] == 1 else f"{module}#{used[module]}"
        members = tuple(
            Member(
                tensor=tensor,
                dim=dim,
                positions=tuple(
                    np.concatenate([item.places[tensor, dim] for item in classes]).tolist()
                ),
            )
            for tensor, dim in classes[0].places
        )
        groups.append(ChannelGroup(name=name, size=len(classes), members=members))
        roots[name] = np.array([item.root for item in classes])
    return Grouping(
        groups=tuple(groups),
        frozen=tuple(
            FrozenGroup(name=module, size=size, reason=reason)
            for (module, reason), size in frozen.items()
        ),
        roots=roots,
        products=tuple(
            Product(
                module=module,
                macs=labels.numel() * macs // walk.graph.batch,
                by_group={
                    name: elements[own[0]] * macs // walk.graph.batch
                    for name, own in roots.items()
                    if own[0] in elements
                },
            )
            for (module, labels, macs), elements in zip(
                walk.products[EVALUATION], products, strict=True
            )
        ),
    )


def _classes(walk: Walk) -> list[_Class]:
    """Returns every class with its places, the axes of each in the order of their first use."""
    axes = list(walk.axes)
    if not axes:
        return []
    roots = torch.cat([walk.labels.roots(walk.axes[axis]) for axis in axes]).numpy()
    lengths = [len(walk.axes[axis]) for axis in axes]
    numbers = np.repeat(np.arange(len(axes)), lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    sorting = np.lexsort((positions, numbers, roots))
    roots, numbers, positions = roots[sorting], numbers[sorting], positions[sorting]
    starts = np.flatnonzero(np.r_[True, (np.diff(roots) != 0) | (np.diff(numbers) != 0)])
    ends = [*starts[1:].tolist(), len(roots)]
    classes: list[_Class] = []
    heads = zip(roots[starts].tolist(), numbers[starts].tolist(), strict=True)
    for (root, number), start, end in zip(heads, starts.tolist(), ends, strict=True):
        if not classes or classes[-1].root != root:
            classes.append(_Class(root, {}))
        classes[-1].places[axes[number]] = positions[start:end]
    return classes
