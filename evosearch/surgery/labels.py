"""Labels: which channel every element of every tensor belongs to, as a union-find.

A label tensor has the shape of the activation that it describes and holds one label per element.
It is an `expand`ed view wherever it can be, so a feature map costs no more than its channels.
Operators that only move elements are applied to the label tensor as they are.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Labels:
    """A union-find over labels; a class of labels may be frozen, with a reason."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Returns `count` fresh labels, `(count,)`."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def new_frozen(self, reason: str) -> Tensor:
        """Returns one fresh frozen label, a scalar tensor."""
        label = self.new(1)
        self._frozen[int(label)] = reason
        return label[0]

    def find(self, label: int) -> int:
        """Returns the representative of a label's class."""
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def reason(self, label: int) -> str | None:
        """Returns why a label's class is frozen; None where it is not."""
        return self._frozen.get(self.find(label))

    def unite(self, left: Tensor, right: Tensor) -> Tensor:
        """Makes two label tensors the same, element by element, after broadcasting.

        Returns:
            The labels of the result, of the broadcast shape.
        """
        shape = np.broadcast_shapes(left.shape, right.shape)
        left, right = left.expand(shape), right.expand(shape)
        pairs = torch.stack([_compact(left, right), _compact(right, left)]).flatten(1)
        for a, b in torch.unique(pairs, dim=1).T.tolist():
            self._join(a, b)
        return left

    def _join(self, left: int, right: int) -> None:
        keep, merge = sorted((self.find(left), self.find(right)))
        if keep == merge:
            return
        self._parent[merge] = keep
        reason = self._frozen.pop(merge, None)
        if reason is not None:
            self._frozen.setdefault(keep, reason)

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Freezes every class in a label tensor; an earlier reason stays."""
        for label in torch.unique(_compact(labels, labels)).tolist():
            self._frozen.setdefault(self.find(label), reason)


def _compact(labels: Tensor, other: Tensor) -> Tensor:
    """Drops the dimensions along which both tensors are expanded views of one element."""
    for dim in range(labels.ndim):
        if labels.stride(dim) == 0 and other.stride(dim) == 0:
            labels, other = labels.narrow(dim, 0, 1), other.narrow(dim, 0, 1)
    return labels


def constant_along(labels: Tensor, dim: int) -> bool:
    """Returns whether labels do not change along a dimension."""
    if labels.stride(dim) == 0 or labels.shape[dim] == 1:
        return True
    first = labels.narrow(dim, 0, 1)
    return bool((labels == first).all())


def collapse(labels: Tensor, dims: Sequence[int]) -> Tensor | None:
    """Returns the labels with the given dimensions reduced to size 1.

    Returns:
        None where the labels change along one of them.
    """
    for dim in dims:
        if not constant_along(labels, dim):
            return None
        labels = labels.narrow(dim, 0, 1)
    return labels


def splits_channels(labels: Tensor, shape: Sequence[int]) -> bool:
    """Returns whether reshaping to `shape` cuts a dimension along which labels change.

    Merging such dimensions with others (flatten) keeps every channel whole; cutting one ties
    positions to sizes that the model's code fixes.
    """
    source = [(size, not constant_along(labels, i)) for i, size in enumerate(labels.shape)]
    target = list(shape)
    i = j = 0
    while i < len(source) and j < len(target):
        size_in, size_out = source[i][0], target[j]
        block, parts = [source[i]], int(target[j] > 1)
        i, j = i + 1, j + 1
        while size_in != size_out:
            if size_in < size_out:
                size_in *= source[i][0]
                block.append(source[i])
                i += 1
            else:
                size_out *= target[j]
                parts += int(target[j] > 1)
                j += 1
        if parts > 1 and any(changes for _, changes in block):
            return True
    return False
