"""Activations alive at once, as exact forms in the widths: the largest of them is the peak.

What is counted is the exported graph, run operator by operator: a tensor takes memory from the
operator that makes it to the last one that reads it, the input of the network included. Views and
operators that work in place take none of their own. Weights are not counted, nor what an operator
needs inside for a moment; code that keeps a tensor in a variable for longer takes more. A tensor
that code makes without reading another (`torch.zeros`) counts as in the whole network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from evosearch.space.costform import ByteTerm, Monomial
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.tracing.export import Export, Reading
from evosearch.surgery.tracing.walk import Walk, operator_name

Row = NDArray[np.int64]
"""Bytes of one image: a constant, then those of each channel of each group, `(1 + groups,)`."""


@dataclass(kw_only=True)
class _Buffer:
    """Memory that tensors share.

    Attributes:
        size: its bytes.
        born, read: numbers of the operator that makes it, and of the last one that reads it.
    """

    size: Row
    born: int
    read: int


def peak_terms(
    export: Export, reading: Reading, groups: Sequence[ChannelGroup]
) -> tuple[ByteTerm, ...]:
    """Returns the bytes alive at each point of the program that may need the most of them.

    Args:
        export: the model's graphs; that of evaluation is run.
        reading: the labels of its tensors.
        groups: the channels that may go.
    """
    buffers = _buffers(export, _Sizes(reading, groups))
    nodes = list(export.program.graph.nodes)
    points: dict[int, Row] = {}
    for number in sorted({buffer.born for buffer in buffers}):
        alive = [own.size for own in buffers if own.born <= number <= own.read]
        points[number] = np.sum(alive, axis=0)
    full = np.array([group.size for group in groups], dtype=np.int64)
    return tuple(
        _term(_name(nodes[number]), points[number], groups)
        for number in _undominated(points, full)
    )


def _buffers(export: Export, sizes: "_Sizes") -> list[_Buffer]:
    """Returns the memory that a graph's tensors take, but for what weights and constants do."""
    signature = export.program.graph_signature
    images = set(signature.user_inputs)
    buffers: dict[int, _Buffer] = {}
    held: set[int] = set()
    depends: set[fx.Node] = set()
    for number, node in enumerate(export.program.graph.nodes):
        for read in node.all_input_nodes:
            for place, _, _ in _tensors(read):
                if place in buffers:
                    buffers[place].read = number
        if node.name in images or depends.intersection(node.all_input_nodes):
            depends.add(node)
        for place, index, tensor in _tensors(node):
            if node.op == "placeholder" and node.name not in images:
                held.add(place)
            elif place not in buffers and place not in held:
                size = sizes.of(node, index, tensor, batched=node in depends)
                buffers[place] = _Buffer(size=size, born=number, read=number)
    return list(buffers.values())


def _tensors(node: fx.Node) -> Iterator[tuple[int, int, Tensor]]:
    """Yields a node's tensors, each behind the identity of its memory and its number."""
    for index, leaf in enumerate(pytree.tree_leaves(node.meta.get("val"))):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()._cdata, index, leaf


class _Sizes:
    """The bytes of tensors by the channels in them."""

    def __init__(self, reading: Reading, groups: Sequence[ChannelGroup]) -> None:
        self._walk = reading.walk
        self._roots = [reading.grouping.roots[group.name].tolist() for group in groups]
        self._batch = reading.walk.graph.batch

    def of(self, node: fx.Node, index: int, tensor: Tensor, *, batched: bool) -> Row:
        """Returns the bytes of the memory that a node's tensor is the first to take.

        Args:
            node: that makes it.
            index: its number among the node's results.
            tensor: as traced.
            batched: whether it is made of the network's input, and so grows with the images.
        """
        row = np.zeros(1 + len(self._roots), dtype=np.int64)
        row[0] = tensor.untyped_storage().nbytes()
        labels = dict(enumerate(pytree.tree_leaves(self._walk.values[node]))).get(index)
        if isinstance(labels, Tensor) and labels.shape == tensor.shape:
            counts = self._walk.labels.counts(labels)
            for column, roots in enumerate(self._roots, 1):
                own = [counts.get(root, 0) * tensor.element_size() for root in roots]
                # Channels of one group take the same; where they do not, the most counts for all.
                row[column] = max(own)
                row[0] -= sum(own)
        if row[0] < 0:  # a view of what is smaller than itself
            row[:] = 0
            row[0] = tensor.untyped_storage().nbytes()
        return -(-row // self._batch) if batched else row


def _undominated(points: dict[int, Row], full: Row) -> list[int]:
    """Returns the points that no other exceeds at all widths from 1 to the full ones.

    Of points that need the same, the first is returned.
    """
    kept: list[int] = []
    peaks = {number: int(row[0] + row[1:] @ full) for number, row in points.items()}
    for number in sorted(points, key=lambda number: (-peaks[number], number)):
        gaps = [points[number] - points[other] for other in kept]
        if all(gap[0] + np.maximum(gap[1:], gap[1:] * full).sum() > 0 for gap in gaps):
            kept.append(number)
    return sorted(kept)


def _name(node: fx.Node) -> str:
    return Walk.module(node) or operator_name(node) if node.op == "call_function" else "(input)"


def _term(name: str, row: Row, groups: Sequence[ChannelGroup]) -> ByteTerm:
    own = zip([(), *((group.name,) for group in groups)], row.tolist(), strict=True)
    monomials = tuple(Monomial(size, names) for names, size in own if size)
    return ByteTerm(name=name, bytes=monomials)
